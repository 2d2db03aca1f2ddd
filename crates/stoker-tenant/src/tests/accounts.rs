//! Pods of the add-ons follow their service accounts.

use crate::TenantObjects;

use super::{access, plain};

fn build() -> TenantObjects {
    let addons = "addons: { coreDNS: {}, kubeProxy: {} }";
    crate::build(
        &plain("v1.36.3", addons),
        &access("192.0.2.1", &["192.0.2.1"]),
    )
    .unwrap()
}

fn uids(objects: &TenantObjects) -> Vec<Option<String>> {
    let annotation = |template: &k8s_openapi::api::core::v1::PodTemplateSpec| {
        let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
        annotations.get("stoker.dev/service-account-uid").cloned()
    };
    let deployments = objects.deployments.iter();
    let deployments = deployments.map(|object| &object.spec.as_ref().unwrap().template);
    let daemon_sets = objects.daemon_sets.iter();
    let daemon_sets = daemon_sets.map(|object| &object.spec.as_ref().unwrap().template);
    deployments.chain(daemon_sets).map(annotation).collect()
}

#[test]
fn new_accounts_come_with_new_pods() {
    let mut objects = build();
    objects.tie_to_accounts(|namespace, name| Some(format!("{namespace}/{name}")));
    let expected = ["kube-system/coredns", "kube-system/kube-proxy"];
    assert_eq!(uids(&objects), expected.map(|uid| Some(uid.to_owned())));
}

#[test]
fn nothing_is_said_of_accounts_that_are_not_known() {
    let mut objects = build();
    objects.tie_to_accounts(|_, _| None);
    assert_eq!(objects, build());
}
