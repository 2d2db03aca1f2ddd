//! The user's JSON patches.

use serde_json::json;

use super::{access, document, tenant};
use crate::{PatchError, TenantObjects, build, check_patches};

fn build_with(kubelet: &str, proxy: &str) -> Result<TenantObjects, PatchError> {
    let tenant = tenant(&format!(
        "controlPlane: {{ service: {{ serviceType: ClusterIP }} }}
kubernetes:
  version: v1.36.3
  kubelet: {{ configurationJSONPatches: {kubelet} }}
addons:
  kubeProxy: {{ configurationJSONPatches: {proxy} }}"
    ));
    let built = build(&tenant, &access("192.0.2.10", &["192.0.2.10"]));
    assert_eq!(check_patches(&tenant), built.clone().map(|_| ()));
    built
}

fn refusal(kubelet: &str) -> String {
    build_with(kubelet, "[]").unwrap_err().to_string()
}

const KUBELET: &str = "spec.kubernetes.kubelet.configurationJSONPatches";

#[test]
fn patches_change_both_documents() {
    let objects = build_with(
        "[{ op: add, path: /evictionHard, value: { memory.available: 5% } },
          { op: replace, path: /authentication/webhook/cacheTTL, value: 30s },
          { op: remove, path: /rotateCertificates },
          { op: test, path: /clusterDomain, value: cluster.local }]",
        "[{ op: replace, path: /conntrack/maxPerCore, value: 0 }]",
    )
    .unwrap();
    let kubelet = document(&objects, "kubelet-config", "kubelet");
    assert_eq!(kubelet["evictionHard"], json!({ "memory.available": "5%" }));
    assert_eq!(
        kubelet["authentication"]["webhook"],
        json!({ "cacheTTL": "30s", "enabled": true })
    );
    assert_eq!(kubelet.get("rotateCertificates"), None);
    let proxy = document(&objects, "kube-proxy", "config.conf");
    assert_eq!(proxy["conntrack"]["maxPerCore"], 0);
}

/// Nodes that do not know one take it out of theirs.
#[test]
fn feature_gates_reach_kubelets_and_can_be_patched_away() {
    let kubelet = |patches: &str| {
        let tenant = tenant(&format!(
            "controlPlane: {{ service: {{ serviceType: ClusterIP }} }}
kubernetes:
  version: v1.36.3
  featureGates: {{ ContextualLogging: true, WatchListClient: false }}
  kubelet: {{ configurationJSONPatches: {patches} }}"
        ));
        let objects = build(&tenant, &access("192.0.2.10", &["192.0.2.10"])).unwrap();
        document(&objects, "kubelet-config", "kubelet")["featureGates"].clone()
    };
    let both = json!({ "ContextualLogging": true, "WatchListClient": false });
    assert_eq!(kubelet("[]"), both);
    assert_eq!(
        kubelet("[{ op: remove, path: /featureGates/WatchListClient }]"),
        json!({ "ContextualLogging": true })
    );
}

#[test]
fn patches_written_against_kubeadms_printed_document_apply() {
    let objects = build_with(
        "[{ op: replace, path: /syncFrequency, value: 2m0s },
          { op: remove, path: /crashLoopBackOff },
          { op: add, path: /memorySwap/swapBehavior, value: LimitedSwap },
          { op: replace, path: /logging/verbosity, value: 4 }]",
        "[]",
    )
    .unwrap();
    let kubelet = document(&objects, "kubelet-config", "kubelet");
    assert_eq!(kubelet["syncFrequency"], "2m0s");
    assert_eq!(
        kubelet["memorySwap"],
        json!({ "swapBehavior": "LimitedSwap" })
    );
    assert_eq!(kubelet["logging"], json!({ "verbosity": 4 }));
    for unset in [
        "crashLoopBackOff",
        "imageMinimumGCAge",
        "containerRuntimeEndpoint",
    ] {
        assert_eq!(kubelet.get(unset), None, "{unset}");
    }
}

#[test]
fn only_documents_without_patches_carry_kubeadms_hash() {
    let hashed = |objects: TenantObjects| {
        objects
            .config_maps
            .into_iter()
            .filter(|map| map.metadata.annotations.is_some())
            .map(|map| map.metadata.name.unwrap())
            .collect::<Vec<_>>()
    };
    let kubelet = "[{ op: add, path: /maxPods, value: 30 }]";
    let proxy = "[{ op: replace, path: /mode, value: nftables }]";
    assert_eq!(
        hashed(build_with("[]", "[]").unwrap()),
        ["kubelet-config", "kube-proxy"]
    );
    assert_eq!(hashed(build_with(kubelet, "[]").unwrap()), ["kube-proxy"]);
    assert_eq!(hashed(build_with("[]", proxy).unwrap()), ["kubelet-config"]);
}

#[test]
fn a_refused_patch_names_its_field_and_says_why() {
    for (patches, message) in [
        (
            "[{ op: add, path: /maxPods, value: 30 }, { op: replace, path: /maxPod, value: 1 }]",
            "[1] (replace \"/maxPod\"): nothing is there to replace: use add to set it",
        ),
        (
            "[{ op: remove, path: /maxPods }]",
            "[0] (remove \"/maxPods\"): nothing is there to remove",
        ),
        (
            "[{ op: add, path: /featureGates/Foo, value: true }]",
            "[0] (add \"/featureGates/Foo\"): \"/featureGates\" is not there: add it first",
        ),
        (
            "[{ op: add, path: /clusterDNS/7, value: 192.0.2.1 }]",
            "[0] (add \"/clusterDNS/7\"): path is invalid",
        ),
        (
            "[{ op: test, path: /clusterDomain, value: other }]",
            "[0] (test \"/clusterDomain\"): the value there is not the one given",
        ),
        (
            "[{ op: move, path: /a, from: /b }]",
            "[0] (move \"/a\"): nothing is at \"/b\"",
        ),
        (
            "[{ op: copy, path: /a }]",
            "[0] (copy \"/a\"): copy needs from",
        ),
        (
            "[{ op: add, path: /maxPods }]",
            "[0] (add \"/maxPods\"): add needs a value",
        ),
        (
            "[{ op: add, path: maxPods, value: 30 }]",
            "[0] (add \"maxPods\"): path and from must be JSON pointers such as /evictionHard",
        ),
        (
            "[{ op: replace, path: /kind, value: Pod }]",
            "[0] (replace \"/kind\"): apiVersion and kind cannot change",
        ),
        (
            "[{ op: replace, path: '', value: 1 }]",
            "[0] (replace \"\"): apiVersion and kind cannot change",
        ),
    ] {
        assert_eq!(refusal(patches), format!("{KUBELET}{message}"));
    }
}

#[test]
fn a_refused_kube_proxy_patch_names_that_field() {
    let error = build_with("[]", "[{ op: remove, path: /nothing }]").unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.addons.kubeProxy.configurationJSONPatches[0] (remove \"/nothing\"): \
         nothing is there to remove"
    );
}
