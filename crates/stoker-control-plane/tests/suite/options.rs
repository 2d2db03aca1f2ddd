//! What people may ask of the pods, field by field.

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use serde_json::{Value, json};

use crate::golden::check;
use crate::scenario::{Scenario, pod, spec};

/// Cases that API servers and CEL are asked about; the first has every option.
const CASES: &str = include_str!("../../../stoker-api/tests/admission/deployments.yaml");
const SERVICE_CASES: &str = include_str!("../../../stoker-api/tests/admission/services.yaml");

fn with(deployment: &Value) -> Scenario {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    json_merge(&mut spec["controlPlane"]["deployment"], deployment);
    Scenario::new(&spec, None)
}

fn json_merge(object: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
}

fn built(deployment: &Value) -> PodSpec {
    pod(&with(deployment).build()).clone()
}

fn component<'a>(pod: &'a PodSpec, name: &str) -> &'a Container {
    pod.containers
        .iter()
        .find(|container| container.name == name)
        .unwrap()
}

fn args(pod: &PodSpec, name: &str) -> Vec<String> {
    component(pod, name).args.clone().unwrap()
}

/// An API server is asked to take this golden file too (`e2e/tests/crd_support/built.rs`).
#[test]
fn every_option_at_once() {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    for (part, options) in [(CASES, 21), (SERVICE_CASES, 6)] {
        let cases: Vec<Value> = serde_saphyr::from_str(part).unwrap();
        let asked = &cases[0]["patch"]["spec"];
        let control_plane = asked["controlPlane"].as_object().unwrap();
        let fields = control_plane.values().next().unwrap();
        assert_eq!(
            fields.as_object().unwrap().len(),
            options,
            "not every option"
        );
        json_patch::merge(&mut spec, asked);
    }
    check("options", &Scenario::new(&spec, None));
}

#[test]
fn images_come_from_where_they_are_asked_for() {
    let pod = built(&json!({ "registrySettings": {
        "registry": "mirror.example.com:5000/k8s/", "tagSuffix": "-1", "schedulerImage": "sched",
    } }));
    let stock = pod.containers.iter().take(3);
    let images: Vec<_> = stock.flat_map(|c| &c.image).collect();
    assert_eq!(
        images,
        [
            "mirror.example.com:5000/k8s/kube-apiserver:v1.36.3-1",
            "mirror.example.com:5000/k8s/kube-controller-manager:v1.36.3-1",
            "mirror.example.com:5000/k8s/sched:v1.36.3-1",
        ]
    );
}

#[test]
fn a_strategy_is_taken_as_a_whole() {
    let strategy = |asked: Value| {
        let spec = with(&json!({ "strategy": asked })).build().deployment.spec;
        serde_json::to_value(spec.unwrap().strategy).unwrap()
    };
    assert_eq!(
        strategy(json!({ "type": "Recreate" })),
        json!({ "type": "Recreate" })
    );
    assert_eq!(
        strategy(json!({ "rollingUpdate": { "maxSurge": 1 } })),
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } })
    );
}

#[test]
fn a_request_stays_ours_until_people_say_something_of_that_resource() {
    let resources = |asked: Value| {
        let pod = built(&json!({ "resources": { "apiServer": asked } }));
        serde_json::to_value(&component(&pod, "kube-apiserver").resources).unwrap()
    };
    assert_eq!(
        resources(json!({ "requests": { "cpu": 2 } })),
        json!({ "requests": { "cpu": "2", "memory": "250Mi" } })
    );
    // A request of ours could be above the limit; the limit becomes the request.
    assert_eq!(
        resources(json!({ "limits": { "memory": "200Mi" } })),
        json!({ "requests": { "cpu": "25m" }, "limits": { "memory": "200Mi" } })
    );
    let other = built(&json!({ "resources": { "apiServer": { "requests": { "cpu": 2 } } } }));
    let requests = &component(&other, "kube-scheduler").resources;
    assert_eq!(
        requests.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0,
        "5m"
    );
}

#[test]
fn arguments_follow_ours_in_the_order_given() {
    let plain = args(&built(&json!({})), "kube-apiserver");
    let asked = [
        "--vmodule=z=1",
        "--tls-sni-cert-key=/b",
        "--tls-sni-cert-key=/a",
        "-v=4",
    ];
    let pod = built(&json!({ "extraArgs": { "apiServer": asked } }));
    let all = args(&pod, "kube-apiserver");
    assert_eq!(all[..plain.len()], plain);
    assert_eq!(all[plain.len()..], asked);
    let untouched = args(&pod, "kube-scheduler");
    assert_eq!(untouched, args(&built(&json!({})), "kube-scheduler"));
}

#[test]
fn an_argument_replaces_a_default_of_ours_whatever_its_dashes() {
    let pod = built(&json!({ "extraArgs": {
        "apiServer": ["--service_account_issuer=https://new", "--service-account-issuer=https://old"],
        "controllerManager": ["--allocate_node_cidrs=false"],
    } }));
    let issuers = |flag: &&String| flag.starts_with("--service-account-issuer=");
    let flags = args(&pod, "kube-apiserver");
    let issuers: Vec<_> = flags.iter().filter(issuers).collect();
    assert_eq!(
        issuers,
        [
            "--service-account-issuer=https://new",
            "--service-account-issuer=https://old"
        ]
    );
    let flags = args(&pod, "kube-controller-manager");
    let allocates: Vec<_> = flags.iter().filter(|f| f.contains("node-cidrs")).collect();
    assert_eq!(allocates, ["--allocate-node-cidrs=false"]);
}

#[test]
fn feature_gates_join_those_that_stay_as_they_are() {
    let gates = |version: &str| {
        let mut spec = spec("ClusterIP", 1, version, &json!({}));
        spec["controlPlane"]["deployment"]["extraArgs"] =
            json!({ "apiServer": ["--feature-gates=A=true", "--feature_gates=B=false"] });
        let flags = args(pod(&Scenario::new(&spec, None).build()), "kube-apiserver");
        let gates = flags.into_iter().filter(|flag| flag.contains("gates"));
        gates.collect::<Vec<_>>()
    };
    assert_eq!(
        gates("v1.36.3"),
        ["--feature-gates=UnknownVersionInteroperabilityProxy=false,A=true,B=false"]
    );
    assert_eq!(gates("v1.35.4"), ["--feature-gates=A=true,B=false"]);
}

#[test]
fn admission_plugins_join_the_one_that_is_always_on() {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    spec["kubernetes"]["admissionControllers"] = json!([
        "PodNodeSelector",
        "NodeRestriction",
        "AlwaysPullImages",
        "PodNodeSelector"
    ]);
    let flags = args(pod(&Scenario::new(&spec, None).build()), "kube-apiserver");
    let wanted = "--enable-admission-plugins=NodeRestriction,PodNodeSelector,AlwaysPullImages";
    assert!(flags.contains(&wanted.to_owned()), "{flags:?}");
}

#[test]
fn a_components_probe_settings_win_over_those_for_all() {
    let pod = built(&json!({ "probes": {
        "liveness": { "periodSeconds": 7, "failureThreshold": 9 },
        "readiness": { "timeoutSeconds": 2 },
        "apiServer": { "liveness": { "failureThreshold": 4 } },
        "scheduler": { "readiness": { "periodSeconds": 3 } },
    } }));
    let timing = |probe: &Option<Probe>| {
        let probe = probe.as_ref().unwrap();
        [
            probe.period_seconds,
            probe.timeout_seconds,
            probe.failure_threshold,
        ]
        .map(Option::unwrap)
    };
    let api_server = component(&pod, "kube-apiserver");
    assert_eq!(timing(&api_server.liveness_probe), [7, 15, 4]);
    assert_eq!(timing(&api_server.readiness_probe), [5, 2, 3]);
    assert_eq!(timing(&api_server.startup_probe), [1, 5, 600]);
    let manager = component(&pod, "kube-controller-manager");
    assert_eq!(timing(&manager.liveness_probe), [7, 15, 9]);
    assert_eq!(manager.readiness_probe, None);
    let scheduler = component(&pod, "kube-scheduler");
    assert_eq!(timing(&scheduler.readiness_probe), [3, 2, 3]);
}

#[test]
fn placement_is_as_asked_for_and_ours_otherwise() {
    let ours = built(&json!({}));
    let pod = built(&json!({
        "topologySpreadConstraints": [
            { "maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule" },
            {
                "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": { "matchLabels": { "a": "b" } },
            },
        ],
    }));
    assert_eq!(pod.affinity, ours.affinity);
    let spread = serde_json::to_value(pod.topology_spread_constraints).unwrap();
    let selector = |i: usize| &spread[i]["labelSelector"]["matchLabels"];
    assert_eq!(*selector(0), json!({ "stoker.dev/name": "gpu-17" }));
    assert_eq!(*selector(1), json!({ "a": "b" }));
    let pod = built(&json!({ "affinity": {} }));
    assert_eq!(serde_json::to_value(pod.affinity).unwrap(), json!({}));
    assert_eq!(
        pod.topology_spread_constraints,
        ours.topology_spread_constraints
    );
}

/// Labels that select pods, and the checksum that restarts them, cannot be taken over.
#[test]
fn our_labels_and_annotations_win() {
    let scenario = with(&json!({
        "additionalMetadata": { "labels": { "stoker.dev/project": "x", "team": "gpu" } },
        "podAdditionalMetadata": {
            "labels": { "stoker.dev/name": "other", "tier": "one" },
            "annotations": { "stoker.dev/restart-checksum": "x", "note": "two" },
        },
    }));
    let deployment = scenario.build().deployment;
    let labels = deployment.metadata.labels.unwrap();
    assert_eq!(
        (
            labels["stoker.dev/project"].as_str(),
            labels["team"].as_str()
        ),
        ("stoker", "gpu")
    );
    let template = deployment.spec.unwrap().template.metadata.unwrap();
    let labels = template.labels.unwrap();
    assert_eq!(
        (labels["stoker.dev/name"].as_str(), labels["tier"].as_str()),
        ("gpu-17", "one")
    );
    let annotations = template.annotations.unwrap();
    assert_eq!(annotations["note"], "two");
    assert_eq!(annotations["stoker.dev/restart-checksum"].len(), 64);
}

/// What concerns the Deployment alone must not replace pods.
#[test]
fn the_deployments_own_metadata_and_strategy_restart_nothing() {
    let mut scenario = with(&json!({}));
    let before = scenario.build().deployment.spec.unwrap().template;
    scenario.tenant = crate::scenario::tenant(&{
        let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
        json_merge(
            &mut spec["controlPlane"]["deployment"],
            &json!({
                "strategy": { "type": "Recreate" },
                "additionalMetadata": { "annotations": { "a": "b" } },
            }),
        );
        spec
    });
    let after = scenario.build().deployment;
    assert_eq!(after.metadata.annotations.unwrap()["a"], "b");
    assert_eq!(after.spec.unwrap().template, before);
}
