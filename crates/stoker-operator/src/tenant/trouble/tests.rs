use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::pods::Pods;
use super::Trouble;

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "one-0" }, "status": status })).unwrap()
}

/// One container in this state, which ended like this before.
fn container(state: &Value, last: &Value) -> Pod {
    pod(&json!({ "containerStatuses": [
        { "name": "kube-scheduler", "image": "s", "imageID": "", "ready": true, "restartCount": 0,
          "state": { "running": {} } },
        { "name": "kube-apiserver", "image": "registry/a:v1", "imageID": "", "ready": false,
          "restartCount": 3, "state": state, "lastState": last },
    ]}))
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } })
}

fn said(pod: &Pod) -> Option<(&'static str, String)> {
    Trouble::of(pod).map(|trouble| (trouble.reason, trouble.message))
}

#[test]
fn what_keeps_a_container_from_running_is_said_with_its_name() {
    let none = json!({});
    let pull = "rpc error: code = NotFound desc = registry/a:v1: not found";
    let again = format!("Back-off pulling image \"registry/a:v1\": ErrImagePull: {pull}");
    let unpulled = format!("image registry/a:v1: ImagePullBackOff: {pull}");
    let crash_loop = waiting(
        "CrashLoopBackOff",
        "back-off 40s restarting failed container",
    );
    let oom = ended(137, "OOMKilled", "");
    let fatal = ended(1, "Error", "E1 first\n  F2 open x: no such file\n");
    let cases = [
        (
            waiting("ErrImagePull", pull),
            &none,
            "ImageNotPulled",
            unpulled.as_str(),
        ),
        (
            waiting("ImagePullBackOff", &again),
            &none,
            "ImageNotPulled",
            &unpulled,
        ),
        (
            waiting("InvalidImageName", "couldn't parse image name"),
            &none,
            "ImageNotPulled",
            "image registry/a:v1: InvalidImageName: couldn't parse image name",
        ),
        (
            waiting("CreateContainerConfigError", "secret \"one-ca\" not found"),
            &none,
            "ContainerNotCreated",
            "CreateContainerConfigError: secret \"one-ca\" not found",
        ),
        (
            crash_loop,
            &oom,
            "ContainerCrashed",
            "it ended with exit code 137: OOMKilled",
        ),
        (
            oom.clone(),
            &none,
            "ContainerCrashed",
            "it ended with exit code 137: OOMKilled",
        ),
        (
            json!({ "running": {} }),
            &fatal,
            "ContainerCrashed",
            "it ended with exit code 1: Error: E1 first F2 open x: no such file",
        ),
    ];
    for (state, last, reason, why) in cases {
        let message = format!("container kube-apiserver of pod one-0: {why}");
        assert_eq!(
            said(&container(&state, last)),
            Some((reason, message)),
            "{state}"
        );
    }
    for usual in [
        waiting("ContainerCreating", ""),
        waiting("PodInitializing", ""),
        json!({ "running": {} }),
    ] {
        assert_eq!(said(&container(&usual, &none)), None, "{usual}");
    }
}

#[test]
fn what_keeps_a_pod_from_its_node_is_said_without_what_was_tried() {
    let unscheduled = pod(&json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available.",
    }]}));
    let message = "pod one-0: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.";
    assert_eq!(
        said(&unscheduled),
        Some(("PodUnschedulable", message.to_owned()))
    );
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" });
    let message = "pod one-0: Evicted: low on memory".to_owned();
    assert_eq!(said(&pod(&evicted)), Some(("PodFailed", message)));
}

#[test]
fn a_pod_that_is_not_let_in_is_told_without_its_name() {
    let deployment = |status: &str| -> Deployment {
        serde_json::from_value(json!({ "status": { "conditions": [{
            "type": "ReplicaFailure", "status": status, "reason": "FailedCreate",
            "message": "pods \"one-6c5-x7k2p\" is forbidden: exceeded quota: q, requested: cpu=1",
        }]}}))
        .unwrap()
    };
    let trouble = Trouble::of_deployment(&deployment("True")).unwrap();
    let message = "no control-plane pod can be created: exceeded quota: q, requested: cpu=1";
    assert_eq!(
        (trouble.reason, trouble.message.as_str()),
        ("PodsNotCreated", message)
    );
    assert_eq!(Trouble::of_deployment(&deployment("False")), None);
}

#[test]
fn each_try_is_no_news_but_another_cause_is() {
    let mut pods = Pods::default();
    let none = json!({});
    let created = |id: &str| {
        let why = format!("failed to create task {id}: no such device");
        container(&waiting("RunContainerError", &why), &none)
    };
    assert!(pods.saw(&created("4f00aa")));
    let first = pods.trouble().cloned();
    for id in ["0b17", "ffee12", "9"] {
        assert!(!pods.saw(&created(id)), "{id}");
    }
    assert_eq!(pods.trouble().cloned(), first);
    let crash = |state: &Value, at: u32| {
        let last = ended(255, "Error", &format!("F{at} main.go:7] no etcd"));
        container(state, &last)
    };
    assert!(pods.saw(&crash(&waiting("CrashLoopBackOff", "back-off 10s"), 1)));
    assert!(!pods.saw(&crash(&waiting("CrashLoopBackOff", "back-off 20s"), 2)));
    assert!(!pods.saw(&crash(&json!({ "running": {} }), 2)));
    assert!(!pods.saw(&crash(&ended(255, "Error", "F3 main.go:7] no etcd"), 2)));
    let out_of_memory = crash(&ended(137, "OOMKilled", ""), 3);
    assert!(pods.saw(&out_of_memory));
    assert_eq!(pods.trouble(), Trouble::of(&out_of_memory).as_ref());
    let running = container(&json!({ "running": {} }), &none);
    assert!(pods.saw(&running));
    assert_eq!(pods.trouble(), None);
}

#[test]
fn a_pod_that_starts_speaks_before_one_that_was_evicted() {
    let mut pods = Pods::default();
    pods.saw(&pod(&json!({ "phase": "Failed", "reason": "Evicted" })));
    assert_eq!(pods.trouble().unwrap().reason, "PodFailed");
    let mut next = container(&waiting("ErrImagePull", "gone"), &json!({}));
    next.metadata.name = Some("one-1".to_owned());
    pods.saw(&next);
    assert_eq!(pods.trouble().unwrap().reason, "ImageNotPulled");
    pods.gone("one-1");
    assert_eq!(pods.trouble().unwrap().reason, "PodFailed");
}
