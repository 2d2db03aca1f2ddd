use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::*;
use crate::watches::tests::operator;

/// As a watch shows it: generation, observed generation, replicas, updated and ready ones. One without replicas has none
/// wanted.
fn deployment(
    annotations: &Value,
    [generation, observed, replicas, updated, ready]: [i64; 5],
) -> Deployment {
    let sent = json!({
        "metadata": { "name": "one", "generation": generation, "annotations": annotations },
        "spec": { "replicas": replicas, "selector": {}, "template": {} },
        "status": {
            "observedGeneration": observed, "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready,
        },
    });
    read(&to_raw_value(&sent).unwrap()).unwrap()
}

const DONE: [i64; 5] = [2, 2, 1, 1, 1];

#[test]
fn what_replaces_pods_of_a_tenant_that_served_needs_a_turn_unless_a_person_wants_it() {
    let made = json!({ TEMPLATE: "old" });
    let old = deployment(&made, DONE);
    let down = deployment(&made, [2, 2, 1, 1, 0]);
    let unmarked = deployment(&json!({}), DONE);
    let of = |live, template, same_spec, has_served| {
        needs_turn(&Facts {
            live,
            template,
            same_spec,
            has_served,
            is_awake: true,
        })
    };
    assert!(of(Some(&old), "new", true, true), "a new version");
    assert!(
        of(Some(&unmarked), "new", true, true),
        "from before there were digests"
    );
    assert!(
        of(Some(&down), "new", true, true),
        "a blip of the pool is no reason to replace a whole fleet at once"
    );
    assert!(!of(Some(&old), "old", true, true), "no pod is replaced");
    assert!(!of(Some(&old), "new", false, true), "a person's change");
    assert!(!of(Some(&old), "new", true, false), "a birth that goes on");
    assert!(!of(None, "new", true, true), "it has no pods");
    let asleep = deployment(&made, [2, 2, 0, 0, 0]);
    assert!(!of(Some(&asleep), "new", true, true), "it has no pods");
    let goes_to_sleep = Facts {
        live: Some(&old),
        template: "new",
        same_spec: true,
        has_served: true,
        is_awake: false,
    };
    assert!(!needs_turn(&goes_to_sleep), "none is to take their place");
}

#[test]
fn a_rollout_is_complete_when_every_pod_is_new_and_ready() {
    let cases = [
        (DONE, 2, true, "done"),
        (DONE, 3, false, "the cache lags behind"),
        ([3, 2, 1, 1, 1], 3, false, "not seen yet"),
        ([3, 3, 2, 1, 2], 3, false, "an old pod is there"),
        ([3, 3, 1, 1, 0], 3, false, "the new pod is not ready"),
        ([3, 3, 0, 0, 0], 3, true, "asleep"),
    ];
    for (counters, applied, expected, why) in cases {
        let live = deployment(&json!({}), counters);
        assert_eq!(is_complete(&live, applied), expected, "{why}");
    }
}

#[test]
fn what_the_cache_has_counts_unless_it_lags_behind_an_answer() {
    let of = |version: &str, ready| {
        let mut one = deployment(&json!({}), [2, 2, 1, 1, ready]);
        one.metadata.resource_version = Some(version.to_owned());
        one
    };
    let ready = |known: Deployment, cached| serves(&newer(known, cached));
    assert!(ready(of("9", 0), Some(of("10", 1))));
    assert!(!ready(of("10", 0), Some(of("9", 1))), "it was ready once");
    assert!(!ready(of("9", 0), None), "not there yet");
}

#[test]
fn a_deployment_made_again_counts_from_the_beginning_and_a_cache_that_lags_takes_nothing_back() {
    let of = |uid: &str, generation| {
        let mut one = deployment(&json!({}), [generation, generation, 1, 1, 1]);
        one.metadata.uid = Some(uid.to_owned());
        one
    };
    let known = |uid: &str, generation| Deployed {
        of: 1,
        generation,
        uid: Some(uid.to_owned()),
    };
    let (old, new) = (of("a", 5), of("b", 1));
    let first = follow(None, 1, Some(&old), None);
    assert_eq!(first, known("a", 5));
    let lags = of("a", 4);
    assert_eq!(follow(Some(first.clone()), 1, None, Some(&lags)), first);
    let again = follow(Some(first), 1, Some(&new), Some(&old));
    assert_eq!(again, known("b", 1), "it is complete at generation 1");
    assert_eq!(follow(Some(again.clone()), 1, None, Some(&old)), again);
    assert_eq!(follow(Some(again.clone()), 1, None, None), again);
    let from_cache = follow(None, 1, None, Some(&old));
    assert_eq!(from_cache, known("a", 5), "after a start of this process");
}

#[test]
fn a_process_that_begins_knows_whose_turn_it_was() {
    let unfinished = [3, 3, 2, 1, 2];
    let of = |annotations: &Value, counters, reason: &str| {
        let mut live = deployment(annotations, counters);
        let progressing = json!([{ "type": "Progressing", "status": "True", "reason": reason }]);
        let status = live.status.as_mut().unwrap();
        status.conditions = serde_json::from_value(progressing).unwrap();
        is_rolling(&live)
    };
    let turn = json!({ TEMPLATE: "new", TURN: "new" });
    assert!(of(&turn, unfinished, "ReplicaSetUpdated"));
    assert!(of(&turn, unfinished, "ProgressDeadlineExceeded"));
    assert!(
        of(&turn, [4, 3, 1, 1, 1], "NewReplicaSetAvailable"),
        "said of the template before"
    );
    assert!(!of(&turn, DONE, "NewReplicaSetAvailable"));
    assert!(
        !of(&turn, [2, 2, 1, 1, 0], "NewReplicaSetAvailable"),
        "what broke later was rolled out"
    );
    let by_a_person = json!({ TEMPLATE: "newer", TURN: "new" });
    assert!(!of(&by_a_person, unfinished, "ReplicaSetUpdated"));
    assert!(!of(&json!({}), unfinished, "ReplicaSetUpdated"), "a birth");
}

#[test]
fn the_digest_is_of_the_pod_template_alone() {
    let built = |annotations: Value, replicas: i32| -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "one", "annotations": annotations },
            "spec": {
                "replicas": replicas, "selector": {},
                "template": { "metadata": { "labels": { "a": "b" } } },
            },
        }))
        .unwrap()
    };
    let (one, mut other) = (built(json!({}), 1), built(json!({ "x": "y" }), 7));
    assert_eq!(template(&one).unwrap(), template(&other).unwrap());
    other.spec.as_mut().unwrap().template.metadata = None;
    assert_ne!(template(&one).unwrap(), template(&other).unwrap());
    let marked = stamped(one, "new", true);
    assert!(had_turn(Some(&marked), "new") && !had_turn(Some(&marked), "old"));
    assert_eq!(annotation(&marked, TEMPLATE), Some("new"));
}

fn tenant(name: &str) -> TenantRef {
    ObjectRef::new(name).within("a")
}

#[test]
fn one_at_a_time_in_the_order_asked() {
    let rollouts = Rollouts::default();
    let [a, b, c] = ["a", "b", "c"].map(tenant);
    assert_eq!(rollouts.ask(&a, None), Turn::Rolling);
    assert_eq!(rollouts.ask(&b, None), Turn::Waiting);
    assert_eq!(rollouts.ask(&c, None), Turn::Waiting);
    assert_eq!(rollouts.ask(&a, None), Turn::Rolling, "still its turn");
    assert_eq!(rollouts.leave(&a), Some(b.clone()));
    assert_eq!(rollouts.ask(&b, None), Turn::Rolling);
    assert_eq!(rollouts.leave(&c), None, "it is not its turn that ends");
    assert_eq!(rollouts.leave(&b), None, "nobody waits");
    assert_eq!(rollouts.turn_of(&b), None);
}

#[test]
fn who_is_woken_and_needs_no_turn_lets_the_next_one_go() {
    let rollouts = Rollouts::default();
    let [a, b, c] = ["a", "b", "c"].map(tenant);
    rollouts.resume([a.clone()]);
    assert_eq!(rollouts.ask(&b, None), Turn::Waiting);
    assert_eq!(rollouts.ask(&c, None), Turn::Waiting);
    assert_eq!(rollouts.leave(&a), Some(b.clone()));
    assert_eq!(
        rollouts.leave(&b),
        Some(c),
        "b was deleted, or its pass failed"
    );
}

#[test]
fn a_turn_that_must_end_says_when_however_often_it_is_asked_for() {
    let rollouts = Rollouts::default();
    let [a, b] = ["a", "b"].map(tenant);
    let now = Instant::now();
    assert_eq!(rollouts.ask(&a, Some(now)), Turn::Rolling);
    let later = now + Duration::from_secs(9);
    assert_eq!(rollouts.ask(&a, Some(later)), Turn::Rolling);
    assert_eq!(rollouts.turn_of(&a), Some(Some(now)));
    assert_eq!(rollouts.ask(&b, None), Turn::Waiting);
    assert_eq!(rollouts.turn_of(&b), None);
}

#[tokio::test]
async fn who_is_cut_off_keeps_its_turn_but_no_place_before_others() {
    let (parts, _server) = operator(&[]);
    let rollouts = &parts.ctx.rollouts;
    let [a, b, c] = ["a", "b", "c"].map(tenant);
    for waiting in [&a, &b, &c] {
        rollouts.ask(waiting, None);
    }
    assert_eq!(stand_aside(&b, &parts.ctx), None);
    assert_eq!(stand_aside(&a, &parts.ctx), Some(Turn::Rolling));
    assert_eq!(rollouts.ask(&a, None), Turn::Rolling);
    assert_eq!(rollouts.leave(&a), Some(c), "b is to ask again");
}
