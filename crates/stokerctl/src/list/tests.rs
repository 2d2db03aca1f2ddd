use super::*;

const NOW: &str = "2026-01-02T00:00:00Z";

fn tenant(change: Value) -> TenantControlPlane {
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "demo", "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "controlPlane": { "service": { "serviceType": "ClusterIP" }, "deployment": { "replicas": 2 } },
            "kubernetes": { "version": "v1.36.3" },
        },
    });
    merge(&mut object, change);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn status(ready: &str, reason: &str, message: &str, state: &str) -> Value {
    json!({ "status": {
        "controlPlaneEndpoint": "10.0.0.1:6443",
        "storage": { "driver": "etcd", "dataStoreName": "default", "setup": { "schema": "id", "user": "id" } },
        "kubernetesResources": {
            "version": { "version": "v1.35.0", "status": state },
            "deployment": { "name": "demo", "namespace": "team", "readyReplicas": 1 },
        },
        "conditions": [{ "type": "Ready", "status": ready, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T23:55:00Z" }],
    } })
}

fn row(tenant: &TenantControlPlane) -> Row {
    Row::of(tenant, NOW.parse().unwrap())
}

#[test]
fn why_is_said_of_what_is_not_ready_and_of_nothing_else() {
    let paused = json!({ "metadata": { "annotations": { "stoker.dev/paused": "disk swap" } } });
    let mut asleep_and_paused = status("False", "Sleeping", "no replicas", "Sleeping");
    merge(&mut asleep_and_paused, paused);
    let cases = [
        (status("True", "Available", "fine", "Ready"), "Ready", ""),
        (
            status("False", "Sleeping", "no replicas", "Sleeping"),
            "Sleeping",
            "",
        ),
        (
            status("False", "KeyLost", "restore the Secret", "NotReady"),
            "NotReady",
            "KeyLost: restore the Secret",
        ),
        (asleep_and_paused, "Sleeping,Paused", "paused: disk swap"),
        (
            json!({}),
            "Provisioning",
            "NotLookedAt: the operator has not written a status: does it run?",
        ),
    ];
    for (change, state, why) in cases {
        let row = row(&tenant(change));
        assert_eq!((row.status.as_str(), row.why.as_str()), (state, why));
    }
}

#[test]
fn one_that_is_deleted_is_amiss_though_its_last_word_was_ready() {
    let mut change = status("True", "Available", "fine", "Ready");
    merge(
        &mut change,
        json!({ "metadata": { "deletionTimestamp": NOW } }),
    );
    let tenant = tenant(change);
    assert!(is_amiss(&tenant));
    assert_eq!(row(&tenant).status, "Deleting");
}

#[test]
fn columns_have_what_is_asked_first_and_wide_ones_the_rest() {
    let tenants = [tenant(status(
        "False",
        "PodsStarting",
        "0 of 2 run",
        "NotReady",
    ))];
    let now = NOW.parse().unwrap();
    let expected = "\
NAMESPACE   NAME   VERSION            STATUS     ENDPOINT        AGE   WHY
team        demo   v1.35.0->v1.36.3   NotReady   10.0.0.1:6443   24h   PodsStarting: 0 of 2 run
";
    assert_eq!(table(&tenants, false, now), expected);
    let wide = table(&tenants, true, now);
    let line: Vec<_> = wide.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[4..8], ["5m", "1/2", "default", "id"]);
}
