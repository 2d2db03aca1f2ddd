//! Images of the add-ons.

use super::{access, plain};
use crate::build;

/// Images of `CoreDNS` and kube-proxy for the add-ons' fields.
fn images(core_dns: &str, kube_proxy: &str) -> [String; 2] {
    let add_ons = format!("addons: {{ coreDNS: {core_dns}, kubeProxy: {kube_proxy} }}");
    let built = build(&plain("v1.35.4", &add_ons), &access("192.0.2.10", &[])).unwrap();
    let core_dns = built.deployments[0]
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref();
    let kube_proxy = built.daemon_sets[0]
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref();
    [core_dns, kube_proxy].map(|pod| pod.unwrap().containers[0].image.clone().unwrap())
}

#[test]
fn an_agents_image_is_the_operators_but_for_what_the_spec_names() {
    let image = |agent: &str, operators: &str| {
        let add_ons = format!("addons: {{ konnectivity: {{ agent: {agent} }} }}");
        let mut access = access("192.0.2.10", &[]);
        access.tunnel.as_mut().unwrap().image = operators.to_owned();
        let built = build(&plain("v1.35.4", &add_ons), &access).unwrap();
        let pod = built.daemon_sets[0].spec.clone().unwrap().template.spec;
        pod.unwrap().containers[0].image.clone().unwrap()
    };
    let operators = "r.example.com:5000/stoker-node:v1";
    let pinned = "r.example.com:5000/stoker-node:v1@sha256:0123";
    assert_eq!(image("{}", pinned), pinned);
    assert_eq!(image("{ image: '', version: '' }", operators), operators);
    assert_eq!(
        image("{ version: v2 }", pinned),
        "r.example.com:5000/stoker-node:v2"
    );
    assert_eq!(
        image("{ image: a.example.com/b }", operators),
        "a.example.com/b:v1"
    );
    assert_eq!(
        image("{ image: a.example.com/b/, version: v2 }", operators),
        "a.example.com/b:v2"
    );
    assert_eq!(
        image("{ version: v2 }", "r.example.com:5000/stoker-node"),
        "r.example.com:5000/stoker-node:v2"
    );
}

#[test]
fn repository_and_tag_are_independent() {
    assert_eq!(
        images("{}", "{}"),
        [
            "registry.k8s.io/coredns/coredns:v1.13.1",
            "registry.k8s.io/kube-proxy:v1.35.4"
        ]
    );
    assert_eq!(
        images(
            "{ imageRepository: r.example.com/k8s }",
            "{ imageRepository: r.example.com/k8s/ }"
        ),
        [
            "r.example.com/k8s/coredns:v1.13.1",
            "r.example.com/k8s/kube-proxy:v1.35.4"
        ]
    );
    assert_eq!(
        images("{ imageTag: v9 }", "{ imageTag: v9 }"),
        [
            "registry.k8s.io/coredns/coredns:v9",
            "registry.k8s.io/kube-proxy:v9"
        ]
    );
    assert_eq!(
        images(
            "{ imageRepository: registry.k8s.io }",
            "{ imageRepository: '', imageTag: '' }"
        ),
        [
            "registry.k8s.io/coredns/coredns:v1.13.1",
            "registry.k8s.io/kube-proxy:v1.35.4"
        ]
    );
}
