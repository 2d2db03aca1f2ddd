//! What is built, against what kubeadm itself makes.
//!
//! `tests/kubeadm/v1.36.3.yaml`: `kubeadm init phase upload-config all`, `bootstrap-token` and
//! `addon all` of a real kubeadm v1.36.3 against a real API server, read back; the endpoints are
//! those of that API server's own reconciler; Deployment, `DaemonSet` and Service as
//! `kubeadm init phase addon … --print-manifest` prints them, before the API server's defaults.
//! `coredns-v1.3x.yaml`: the template in that release's source with its values put in.
//!
//! The differences, all meant:
//! - our labels on every object, and kubeadm's hash of documents, which differ in quoting;
//! - `kubelet-config` leaves out what nobody set ([`UNSET`]) and `cgroupDriver`, which the node's
//!   own kubeadm then fills in: the file that `kubeadm join` writes on the node is the same;
//! - `kubeadm:cluster-admins` is made by kubeadm when it writes `admin.conf`, in no phase above.

use serde_json::{Map, Value};
use stoker_api::labels;

use super::{access, all, plain};
use crate::build;

const ADD_ONS: &str = "addons: { coreDNS: {}, kubeProxy: {} }";

/// Pointers into kubeadm's `KubeletConfiguration` to what is not set here.
const UNSET: [&str; 21] = [
    "/authentication/webhook/cacheTTL",
    "/authorization/webhook",
    "/cgroupDriver",
    "/containerRuntimeEndpoint",
    "/cpuManagerReconcilePeriod",
    "/crashLoopBackOff",
    "/evictionPressureTransitionPeriod",
    "/fileCheckFrequency",
    "/httpCheckFrequency",
    "/imageMaximumGCAge",
    "/imageMinimumGCAge",
    "/logging",
    "/memorySwap",
    "/nodeStatusReportFrequency",
    "/nodeStatusUpdateFrequency",
    "/runtimeRequestTimeout",
    "/shutdownGracePeriod",
    "/shutdownGracePeriodCriticalPods",
    "/streamingConnectionIdleTimeout",
    "/syncFrequency",
    "/volumeStatsAggPeriod",
];

/// `object` without what is meant to differ, the documents of a `ConfigMap` parsed.
fn comparable(mut object: Value) -> Value {
    let own = [labels::MANAGED_BY, labels::PROJECT, labels::COMPONENT];
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("annotations").and_then(|annotations| {
        let mut annotations: Map<String, Value> = serde_json::from_value(annotations).unwrap();
        annotations.remove("kubeadm.kubernetes.io/component-config.hash");
        (!annotations.is_empty())
            .then(|| metadata.insert("annotations".to_owned(), annotations.into()))
    });
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !own.contains(&key.as_str()));
        if labels.is_empty() {
            metadata.remove("labels");
        }
    }
    for (key, text) in object
        .get_mut("data")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        if key != "Corefile" {
            *text = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
        }
    }
    without_false_mounts(&mut object);
    object
}

/// The templates write `readOnly: false`, which the API does not keep.
fn without_false_mounts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| key != "readOnly" || *value != Value::Bool(false));
            fields.values_mut().for_each(without_false_mounts);
        }
        Value::Array(items) => items.iter_mut().for_each(without_false_mounts),
        _ => {}
    }
}

fn identity(object: &Value) -> String {
    let name = |key: &str| {
        object["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    format!("{} {}/{}", object["kind"], name("namespace"), name("name"))
}

fn remove(document: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap();
    parent
        .remove(key)
        .unwrap_or_else(|| panic!("kubeadm prints no {pointer}"));
}

#[test]
fn objects_are_those_of_kubeadm_1_36() {
    let built = build(
        &plain("v1.36.3", ADD_ONS),
        &access("192.0.2.10", &["192.0.2.10"]),
    )
    .unwrap();
    let mut ours: Vec<Value> = all(&built).into_iter().map(comparable).collect();
    ours.retain(|object| object["metadata"]["name"] != "kubeadm:cluster-admins");
    ours.sort_by_key(identity);
    let mut theirs: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../../tests/kubeadm/v1.36.3.yaml")).unwrap();
    theirs = theirs.into_iter().map(comparable).collect();
    theirs.sort_by_key(identity);
    let names = |list: &[Value]| list.iter().map(identity).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (ours, mut theirs) in ours.into_iter().zip(theirs) {
        if theirs["metadata"]["name"] == "kubelet-config" && theirs["kind"] == "ConfigMap" {
            for pointer in UNSET {
                remove(&mut theirs["data"]["kubelet"], pointer);
            }
            // The one thing that is ours: kubelets ask for their serving certificates.
            theirs["data"]["kubelet"]["serverTLSBootstrap"] = true.into();
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn core_dns_is_that_of_each_older_kubeadm() {
    for (version, manifest) in [
        (
            "v1.33.13",
            include_str!("../../tests/kubeadm/coredns-v1.33.13.yaml"),
        ),
        (
            "v1.34.4",
            include_str!("../../tests/kubeadm/coredns-v1.34.4.yaml"),
        ),
        (
            "v1.35.4",
            include_str!("../../tests/kubeadm/coredns-v1.35.4.yaml"),
        ),
    ] {
        let built = build(&plain(version, ADD_ONS), &access("192.0.2.10", &[])).unwrap();
        let ours = serde_json::to_value(&built.deployments[0]).unwrap();
        let theirs: Value = serde_saphyr::from_str(manifest).unwrap();
        assert_eq!(comparable(ours), comparable(theirs), "{version}");
    }
}

/// The hash of kubeadm's own `ConfigMap` comes out as kubeadm wrote it.
#[test]
fn documents_are_hashed_as_by_kubeadm() {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../../tests/kubeadm/v1.36.3.yaml")).unwrap();
    let mut checked = 0;
    for mut object in objects {
        let Some(annotations) = object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations")
        else {
            continue;
        };
        if object["kind"] == "ConfigMap" {
            let signed = crate::yaml::sign(serde_json::from_value(object).unwrap());
            assert_eq!(
                serde_json::to_value(signed.metadata.annotations).unwrap(),
                annotations
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 2);
}
