//! Which requests API servers record, and where.

use serde_json::{Value, json};

use crate::golden::check;
use crate::scenario::{Scenario, pod, spec};

fn with(audit: &Value) -> Scenario {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    spec["kubernetes"]["audit"] = audit.clone();
    spec["controlPlane"]["deployment"]["additionalVolumes"] =
        json!([{ "name": "events", "emptyDir": {} }]);
    Scenario::new(&spec, None)
}

fn audit_flags(audit: &Value) -> Vec<String> {
    let objects = with(audit).build();
    let args = pod(&objects).containers[0].args.clone().unwrap();
    args.into_iter()
        .filter(|arg| arg.contains("audit"))
        .collect()
}

fn checksum(scenario: &Scenario) -> String {
    let template = scenario.build().deployment.spec.unwrap().template;
    let annotations = template.metadata.unwrap().annotations.unwrap();
    annotations["stoker.dev/restart-checksum"].clone()
}

#[test]
fn a_log_on_standard_output() {
    check(
        "audit",
        &with(&json!({ "webhook": { "secretName": "audit-sink" }, "log": {} })),
    );
}

#[test]
fn events_go_where_they_are_asked_to() {
    let policy = "--audit-policy-file=/etc/kubernetes/audit-policy.yaml";
    let bounds = [
        "--audit-log-maxage=30",
        "--audit-log-maxbackup=10",
        "--audit-log-maxsize=100",
    ];
    for ours in [Value::Null, json!({})] {
        let flags = audit_flags(&ours);
        assert_eq!(flags[..3], bounds);
        assert_eq!(flags[3..], ["--audit-log-path=-", policy]);
    }
    let webhook = "--audit-webhook-config-file=/etc/kubernetes/audit-webhook.conf";
    let sink = json!({ "secretName": "sink" });
    assert_eq!(audit_flags(&json!({ "webhook": sink })), [policy, webhook]);
    assert_eq!(
        audit_flags(&json!({ "log": { "volume": "events", "maxBackups": 3 } })),
        [
            "--audit-log-maxage=30",
            "--audit-log-maxbackup=3",
            "--audit-log-maxsize=100",
            "--audit-log-path=/var/log/kubernetes/audit/audit.log",
            policy,
        ]
    );
    let objects = with(&json!({ "log": { "volume": "events" } })).build();
    let mounts = pod(&objects).containers[0].volume_mounts.clone().unwrap();
    assert_eq!(mounts[1].name, "events");
    assert_eq!(mounts[1].mount_path, "/var/log/kubernetes/audit");
}

/// An API server reads its policy once.
#[test]
fn another_policy_restarts_the_pods() {
    let mut scenario = with(&Value::Null);
    let mut asking = |audit: Value| {
        scenario.tenant.audit = serde_json::from_value(audit).unwrap();
        checksum(&scenario)
    };
    let ours = asking(json!({}));
    let other = asking(json!({ "policy": { "rules": [{ "level": "Metadata" }] } }));
    assert_ne!(ours, other);
    assert_eq!(ours, asking(json!({ "log": { "volume": "events" } })));
}

#[test]
fn names_of_a_server_for_events_can_be_looked_up() {
    let policy = |audit| serde_json::to_string(&with(&audit).guards().network_policy).unwrap();
    assert!(!policy(json!({})).contains("kube-dns"));
    assert!(policy(json!({ "webhook": { "secretName": "sink" } })).contains("kube-dns"));
}
