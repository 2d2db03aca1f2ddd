//! The tunnel as the operator gives it to a tenant: what its pods, its Service and the inside of the tenant have of it, in both
//! modes, and that it goes again. That streams pass is seen on the lab (`lab_tunnel.rs`).

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
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Container, PodSpec, Service};
use kube::Api;
use kube::api::DeleteParams;
use pod::{TenantPod, born, change, template};
use serde_json::json;
use stoker_lab::versions::default_kubernetes;

const AGENT: &str = "konnectivity-agent";
const PORT: &str = "konnectivity-server";

/// Port of the Service, where there is one for the tunnel.
async fn service_port(bare: &Bare) -> Option<i32> {
    let services: Api<Service> = Api::namespaced(bare.client.clone(), "a");
    let ports = services.get("one").await.unwrap().spec.unwrap().ports;
    let mut ports = ports.unwrap().into_iter();
    let port = ports.find(|port| port.name.as_deref() == Some(PORT))?;
    Some(port.port)
}

async fn enabled(bare: &Bare) -> bool {
    let tenant = bare.tenants("a").get("one").await.unwrap();
    tenant
        .status
        .is_some_and(|status| status.addons.konnectivity.enabled)
}

fn has(container: &Container, start: &str) -> bool {
    let arguments = container.args.iter().flatten();
    arguments.into_iter().any(|text| text.starts_with(start))
}

/// Whether the API server sends into its tenant's network through the warden.
fn goes_through_the_warden(pod: &PodSpec) -> bool {
    let named = |name: &str| pod.containers.iter().find(|one| one.name == name).unwrap();
    let ends = [
        has(named("kube-apiserver"), "--egress-selector-config-file="),
        has(named("stoker-warden"), "--tunnel-socket="),
    ];
    assert_eq!(ends[0], ends[1], "one end without the other");
    ends[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_run_as_asked_are_healed_and_go() {
    let bare = Bare::start().await;
    let _operator = bare.operator_with(&["--node-image=registry.example.com/stoker-node:v7"]);
    let spec = json!({
        "networkProfile": { "address": "192.0.2.9" },
        "addons": { "konnectivity": { "server": { "port": 8140 } } },
    });
    born(&bare, default_kubernetes(), spec).await;
    assert!(goes_through_the_warden(&template(&bare.client).await));
    assert_eq!(service_port(&bare).await, Some(8140));
    let pod = TenantPod::start(&bare, default_kubernetes(), 177).await;
    bare.tenant_reason("a", "one", "TenantConfigured", "Configured")
        .await;
    assert!(enabled(&bare).await);

    let sets: Api<DaemonSet> = Api::namespaced(pod.inside.clone(), "kube-system");
    let deployments: Api<Deployment> = Api::namespaced(pod.inside.clone(), "kube-system");
    let set = sets.get(AGENT).await.unwrap();
    let agent = set.spec.unwrap().template.spec.unwrap();
    let container = &agent.containers[0];
    let image = container.image.as_deref();
    assert_eq!(image, Some("registry.example.com/stoker-node:v7"));
    assert!(has(container, "--server=192.0.2.9:8140"), "{container:?}");

    sets.delete(AGENT, &DeleteParams::default()).await.unwrap();
    until("the agents are back", async || {
        sets.get_opt(AGENT).await.unwrap().is_some()
    })
    .await;

    let mode = json!({ "agent": { "mode": "Deployment", "replicas": 2, "version": "v8" } });
    change(&bare, json!({ "addons": { "konnectivity": mode } })).await;
    until("a Deployment runs them", async || {
        sets.get_opt(AGENT).await.unwrap().is_none()
            && deployments.get_opt(AGENT).await.unwrap().is_some()
    })
    .await;
    let deployment = deployments.get(AGENT).await.unwrap().spec.unwrap();
    assert_eq!(deployment.replicas, Some(2));
    let agent = deployment.template.spec.unwrap();
    let image = agent.containers[0].image.as_deref();
    assert_eq!(image, Some("registry.example.com/stoker-node:v8"));

    change(&bare, json!({ "addons": { "konnectivity": null } })).await;
    until("nothing of it is left", async || {
        deployments.get_opt(AGENT).await.unwrap().is_none()
            && service_port(&bare).await.is_none()
            && !enabled(&bare).await
    })
    .await;
    until("API servers dial by themselves", async || {
        !goes_through_the_warden(&template(&bare.client).await)
    })
    .await;
}
