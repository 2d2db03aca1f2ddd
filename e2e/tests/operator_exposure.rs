//! Where a tenant is reached, with the operator's process against a real API server without nodes: whatever changes it
//! arrives everywhere, and no pod restarts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "nobody looks into the pool here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/reached.rs"]
mod reached;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;
#[path = "operator_support/tls_route.rs"]
mod tls_route;

use bare::{Bare, until};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use reached::Reached;
use serde_json::{Value, json};

fn load_balancer() -> Value {
    json!({ "controlPlane": { "service": { "serviceType": "LoadBalancer" } } })
}

async fn born(bare: &Bare, spec: Value) {
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    bare.tenant("a", "one", spec).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
}

async fn change(bare: &Bare, spec: Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let params = PatchParams::default();
    bare.tenants("a")
        .patch("one", &params, &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_or_name_of_the_load_balancer_arrives_everywhere_and_restarts_nothing() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    born(&bare, load_balancer()).await;
    let reached = Reached::start(&bare, 140).await;
    let pending = reached.condition("TenantConfigured").await;
    assert!(pending.contains("EndpointPending"), "{pending}");

    for address in ["203.0.113.5", "203.0.113.6"] {
        reached.published(json!([{ "ip": address }])).await;
        reached
            .everywhere(&format!("{address}:6443"), address)
            .await;
        reached.slices(&[("kubernetes", &[address])]).await;
    }
    // Both families, in the order that the tenant's Services have.
    let both = json!([{ "ip": "2001:db8::5" }, { "ip": "203.0.113.6" }]);
    reached.published(both).await;
    let (four, six): (&[&str], &[&str]) = (&["203.0.113.6"], &["2001:db8::5"]);
    reached
        .slices(&[("kubernetes", four), ("kubernetes-ipv6", six)])
        .await;

    // A name that every resolver knows without asking: 192.0.2.6, in one hexadecimal number.
    reached
        .published(json!([{ "hostname": "0xc0000206" }]))
        .await;
    reached.everywhere("0xc0000206:6443", "0xc0000206").await;
    reached.slices(&[("kubernetes", &["192.0.2.6"])]).await;

    // Nobody knows this one: pods go on with what they have, everything else follows.
    reached
        .published(json!([{ "hostname": "nothing.invalid" }]))
        .await;
    reached
        .everywhere("nothing.invalid:6443", "nothing.invalid")
        .await;
    bare.tenant_reason("a", "one", "TenantConfigured", "EndpointUnresolved")
        .await;
    reached.slices(&[("kubernetes", &["192.0.2.6"])]).await;

    // One in front of it all.
    change(
        &bare,
        json!({ "networkProfile": { "advertiseAddress": "198.51.100.1" } }),
    )
    .await;
    reached
        .everywhere("198.51.100.1:6443", "198.51.100.1")
        .await;
    reached.slices(&[("kubernetes", &["198.51.100.1"])]).await;
    bare.tenant_reason("a", "one", "TenantConfigured", "Configured")
        .await;
    assert_eq!(reached.generation().await, 1, "a pod restarts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_a_stable_name_where_the_operator_has_a_domain() {
    let bare = Bare::start().await;
    let operator = bare.operator_with(&["--base-domain=clusters.example.com"]);
    born(&bare, load_balancer()).await;
    let reached = Reached::start(&bare, 141).await;
    let name = format!("{}.clusters.example.com", reached.storage_id().await);
    // Before the load balancer has an address.
    reached.everywhere(&format!("{name}:6443"), &name).await;
    assert_eq!(
        reached.issuers().await,
        [
            format!("https://{name}"),
            "https://kubernetes.default.svc.cluster.local".to_owned()
        ]
    );
    bare.tenant_reason("a", "one", "TenantConfigured", "EndpointPending")
        .await;
    for address in ["203.0.113.5", "203.0.113.6"] {
        reached.published(json!([{ "ip": address }])).await;
        reached.slices(&[("kubernetes", &[address])]).await;
        reached.serves(address).await;
    }
    reached.everywhere(&format!("{name}:6443"), &name).await;
    assert_eq!(reached.generation().await, 1, "a pod restarts");

    // Without the domain it is as it would have been.
    operator.kill();
    let _operator = bare.operator();
    reached.everywhere("203.0.113.6:6443", "203.0.113.6").await;
    until("the issuer is the common one", async || {
        reached.issuers().await == ["https://kubernetes.default.svc.cluster.local"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_is_made_healed_and_removed() {
    let bare = Bare::start().await;
    let operator = bare.operator();
    born(&bare, json!({})).await;
    let ingresses: Api<Ingress> = Api::namespaced(bare.client.clone(), "a");
    let asked = json!({ "hostname": "api.example.com:443", "ingressClassName": "nginx",
        "additionalMetadata": { "annotations": { "example.com/a": "b" } } });
    change(&bare, json!({ "controlPlane": { "ingress": asked } })).await;
    let host = async || {
        let found = ingresses.get_opt("one").await.unwrap()?;
        let rule = found.spec?.rules?.pop()?;
        rule.host
    };
    let made = async || host().await.as_deref() == Some("api.example.com");
    until("the Ingress is there", made).await;
    bare.tenant_reason("a", "one", "RouteApplied", "Applied")
        .await;
    let endpoint = async || {
        let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
        status.control_plane_endpoint
    };
    until("the endpoint is the hostname", async || {
        endpoint().await.as_deref() == Some("api.example.com:443")
    })
    .await;

    // Its controller has a say.
    let listens = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.8" }] } } });
    let (params, patch) = (PatchParams::default(), Patch::Merge(&listens));
    ingresses
        .patch_status("one", &params, &patch)
        .await
        .unwrap();
    until("status shows where it listens", async || {
        let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
        let shown = status.kubernetes_resources.ingress.unwrap_or_default();
        shown
            .load_balancer
            .ingress
            .iter()
            .any(|point| point.ip.as_deref() == Some("203.0.113.8"))
    })
    .await;

    // Others do not.
    let tampered = json!({ "spec": { "rules": [{ "host": "elsewhere.example.com" }] } });
    ingresses
        .patch("one", &params, &Patch::Merge(&tampered))
        .await
        .unwrap();
    until("the Ingress is healed", made).await;
    let params = DeleteParams::default();
    ingresses.delete("one", &params).await.unwrap();
    until("the Ingress is back", made).await;

    // No longer asked for while nobody looks.
    operator.kill();
    change(&bare, json!({ "controlPlane": { "ingress": null } })).await;
    let _operator = bare.operator();
    until("the Ingress is gone", async || {
        ingresses.get_opt("one").await.unwrap().is_none()
    })
    .await;
    until("status does not show it", async || {
        let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
        let routed = status
            .conditions
            .iter()
            .any(|found| found.type_ == "RouteApplied");
        status.kubernetes_resources.ingress.is_none() && !routed
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_route_waits_for_the_gateway_api_and_nothing_else_does() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let gateway = json!({ "hostname": "api.example.com",
        "parentRefs": [{ "name": "public", "namespace": "gateways", "port": 443 }] });
    born(&bare, json!({ "controlPlane": { "gateway": gateway } })).await;
    let said = bare
        .tenant_reason("a", "one", "RouteApplied", "GatewayAPIMissing")
        .await;
    println!("it says: {said}");

    bare.create_crd(tls_route::crd(&["v1alpha2", "v1"])).await;
    bare.tenant_reason("a", "one", "RouteApplied", "Applied")
        .await;
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "TLSRoute");
    let kind = ApiResource::from_gvk_with_plural(&kind, "tlsroutes");
    let routes: Api<DynamicObject> = Api::namespaced_with(bare.client.clone(), "a", &kind);
    let spec = routes.get("one").await.unwrap().data["spec"].clone();
    assert_eq!(
        spec,
        json!({
            "hostnames": ["api.example.com"],
            "parentRefs": [{ "name": "public", "namespace": "gateways", "port": 443 }],
            "rules": [{ "backendRefs": [{ "name": "one", "port": 6443 }] }],
        })
    );

    let said = |accepted: &str| {
        json!({ "status": { "parents": [{
            "parentRef": { "name": "public", "namespace": "gateways", "port": 443 },
            "controllerName": "example.com/controller",
            "conditions": [{
                "type": "Accepted", "status": accepted, "reason": "Because",
                "message": "no listener is for this", "lastTransitionTime": "2026-11-21T00:00:00Z",
            }],
        }] } })
    };
    let params = PatchParams::default();
    let no = Patch::Merge(said("False"));
    routes.patch_status("one", &params, &no).await.unwrap();
    let message = bare
        .tenant_reason("a", "one", "RouteApplied", "RouteNotAccepted")
        .await;
    assert!(message.contains("no listener is for this"), "{message}");
    let yes = Patch::Merge(said("True"));
    routes.patch_status("one", &params, &yes).await.unwrap();
    bare.tenant_reason("a", "one", "RouteApplied", "Applied")
        .await;
    let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
    assert_eq!(
        status.control_plane_endpoint.as_deref(),
        Some("api.example.com:443")
    );
    let shown = status.kubernetes_resources.gateway.unwrap();
    assert_eq!(shown.access_points[0].urls, ["https://api.example.com:443"]);

    let tampered = json!({ "spec": { "hostnames": ["elsewhere.example.com"] } });
    routes
        .patch("one", &params, &Patch::Merge(&tampered))
        .await
        .unwrap();
    until("the route is healed", async || {
        routes.get("one").await.unwrap().data["spec"] == spec
    })
    .await;
    change(&bare, json!({ "controlPlane": { "gateway": null } })).await;
    until("the route is gone", async || {
        routes.get_opt("one").await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_tenant_behind_the_gateway_are_led_to_the_listener_of_their_node() {
    let bare = Bare::start().await;
    let _operator = bare.operator_with(&["--base-domain=clusters.example.com"]);
    let listener = json!({ "addons": { "nodeListener": {} } });
    born(&bare, listener).await;
    let reached = Reached::start(&bare, 142).await;
    let name = format!("{}.clusters.example.com", reached.storage_id().await);
    reached.everywhere(&format!("{name}:6443"), &name).await;
    reached.slices(&[("kubernetes", &["192.0.0.64"])]).await;
    reached.serves("192.0.0.64").await;
    let listener = async || reached.arguments("stoker-node-listener").await;
    until("the listeners dial the gateway", async || {
        let arguments = listener().await.unwrap_or_default();
        [
            "--listen=192.0.0.64:6443",
            &format!("--server={name}:6443"),
            &format!("--name={name}"),
        ]
        .iter()
        .all(|wanted| arguments.iter().any(|argument| argument == wanted))
    })
    .await;
    // At an address of the tenant's choice.
    let elsewhere = json!({ "nodeListener": { "addresses": ["198.51.100.9"] } });
    change(&bare, json!({ "addons": elsewhere })).await;
    reached.slices(&[("kubernetes", &["198.51.100.9"])]).await;
    // Without them: what the Service has.
    change(&bare, json!({ "addons": { "nodeListener": null } })).await;
    until("they are gone", async || listener().await.is_none()).await;
    let address = reached.service_address().await;
    reached.slices(&[("kubernetes", &[&address])]).await;
    assert_eq!(reached.generation().await, 1, "a pod restarts");
}
