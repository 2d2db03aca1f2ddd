//! The Corefile is the tenant's as soon as the tenant changes it: neither a pass, nor a restart of the operator, nor an
//! upgrade writes over it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/pod.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod pod;

use bare::{Bare, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use pod::{TenantPod, born, change};
use serde_json::{Value, json};
use stoker_lab::versions::default_kubernetes;

const OWN: &str = ".:53 {\n    forward corp.example.com 10.1.2.3\n}\n";
const LABEL: &str = "app.kubernetes.io/component";

struct Dns {
    maps: Api<ConfigMap>,
    deployments: Api<Deployment>,
}

impl Dns {
    fn of(pod: &TenantPod) -> Self {
        let system = "kube-system";
        Self {
            maps: Api::namespaced(pod.inside.clone(), system),
            deployments: Api::namespaced(pod.inside.clone(), system),
        }
    }

    /// As `kubectl edit` writes.
    async fn edit(&self, change: Value) {
        let params = PatchParams {
            field_manager: Some("kubectl-edit".to_owned()),
            ..PatchParams::default()
        };
        self.maps
            .patch("coredns", &params, &Patch::Merge(change))
            .await
            .unwrap();
    }

    async fn corefile(&self) -> Option<String> {
        let map = self.maps.get_opt("coredns").await.unwrap()?;
        map.data.and_then(|mut data| data.remove("Corefile"))
    }

    /// Waits until the operator has been over the object.
    async fn healed(&self) {
        until("our label is back", async || {
            let map = self.maps.get("coredns").await.unwrap();
            map.labels()
                .get(LABEL)
                .is_some_and(|value| value == "coredns")
        })
        .await;
    }

    /// Whether `holds` of the Corefile soon.
    async fn becomes(&self, what: &str, holds: impl Fn(&str) -> bool) {
        until(what, async || {
            self.corefile().await.is_some_and(|text| holds(&text))
        })
        .await;
    }

    async fn image(&self) -> String {
        let deployment = self.deployments.get("coredns").await.unwrap();
        let pod = deployment.spec.unwrap().template.spec.unwrap();
        pod.containers[0].image.clone().unwrap()
    }
}

/// Takes away the label by which we know the object, so that one can see the operator heal it.
fn unlabelled() -> Value {
    json!({ "metadata": { "labels": { LABEL: "mine" } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_corefile_is_kept_until_it_is_deleted() {
    let bare = Bare::start().await;
    let operator = bare.operator();
    // As of the minor before; the API server itself does not matter here.
    let spec = json!({ "kubernetes": { "version": "v1.35.4" }, "addons": { "coreDNS": {} } });
    born(&bare, default_kubernetes(), spec).await;
    let pod = TenantPod::start(&bare, default_kubernetes(), 174).await;
    bare.tenant_reason("a", "one", "TenantConfigured", "Configured")
        .await;
    let dns = Dns::of(&pod);
    let ours = dns.corefile().await.unwrap();
    assert!(
        ours.contains("kubernetes cluster.local in-addr.arpa"),
        "{ours}"
    );

    let mut edited = unlabelled();
    edited["data"] = json!({ "Corefile": OWN, "corp.db": "; a zone" });
    dns.edit(edited).await;
    dns.healed().await;
    assert_eq!(dns.corefile().await.as_deref(), Some(OWN), "by a pass");

    operator.kill();
    dns.edit(unlabelled()).await;
    let _operator = bare.operator();
    dns.healed().await;
    assert_eq!(dns.corefile().await.as_deref(), Some(OWN), "by a restart");

    let before = dns.image().await;
    change(&bare, json!({ "kubernetes": { "version": "v1.36.3" } })).await;
    until("CoreDNS is of the new minor", async || {
        dns.image().await != before
    })
    .await;
    dns.edit(unlabelled()).await;
    dns.healed().await;
    assert_eq!(dns.corefile().await.as_deref(), Some(OWN), "by an upgrade");
    let map = dns.maps.get("coredns").await.unwrap();
    assert_eq!(map.data.unwrap()["corp.db"], "; a zone");

    // The way back: without the entry, or without the object, ours is written.
    dns.edit(json!({ "data": { "Corefile": null } })).await;
    dns.becomes("the entry is back", |text| *text == ours).await;
    dns.edit(json!({ "data": { "Corefile": OWN } })).await;
    dns.becomes("it is changed", |text| text == OWN).await;
    dns.maps
        .delete("coredns", &DeleteParams::default())
        .await
        .unwrap();
    dns.becomes("the object is back", |text| *text == ours)
        .await;
}
