//! Serving certificates of kubelets, on a tenant's real API server with its real signer, asked for with certificates of
//! nodes: a node gets one for its own addresses, and each kind of forged request is refused with its reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "the pool is not looked at here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/guarded.rs"]
#[expect(dead_code, reason = "nothing is frozen here")]
mod guarded;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bare::{Bare, until};
use guarded::Guarded;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use stoker_lab::bare::BareControllerManager;
use stoker_lab::versions::default_kubernetes;

const SERVER: [&str; 2] = ["digital signature", "server auth"];
const FLAG: &str = "--kubelet-certificate-authority=";

/// One request, by whom and what for.
struct Asked<'a> {
    /// Node that asks.
    by: &'a str,
    common_name: &'a str,
    organization: &'a str,
    hosts: &'a [&'a str],
    usages: &'a [&'a str],
}

impl<'a> Asked<'a> {
    /// As a kubelet asks.
    fn of(by: &'a str, common_name: &'a str, hosts: &'a [&'a str]) -> Self {
        Self {
            by,
            common_name,
            organization: "system:nodes",
            hosts,
            usages: &SERVER,
        }
    }

    fn pem(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, self.organization);
        subject.push(DnType::CommonName, self.common_name);
        let name = |host: &&str| match (host.parse(), host.contains('@')) {
            (Ok(address), _) => SanType::IpAddress(address),
            (_, true) => SanType::Rfc822Name((*host).try_into().unwrap()),
            _ => SanType::DnsName((*host).try_into().unwrap()),
        };
        params.subject_alt_names = self.hosts.iter().map(name).collect();
        let key = KeyPair::generate().unwrap();
        params
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
            .into_bytes()
    }

    async fn post(&self, tenant: &Guarded) -> String {
        let client = if let Some(user) = self.by.strip_prefix("user:") {
            tenant.user(user, "kubeadm:cluster-admins").await
        } else {
            let user = format!("system:node:{}", self.by);
            tenant.user(&user, "system:nodes").await
        };
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "generateName": "csr-" },
            "spec": {
                "signerName": "kubernetes.io/kubelet-serving",
                "request": ByteString(self.pem()), "usages": self.usages,
            },
        });
        let object = serde_json::from_value(object).unwrap();
        let requests: Api<CertificateSigningRequest> = Api::all(client);
        let made = requests.create(&PostParams::default(), &object).await;
        made.unwrap().name_any()
    }
}

/// The answer to a request, once there is one: its type and message.
async fn answer(inside: &Client, name: &str) -> (String, String) {
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        let request = requests.get(name).await.unwrap();
        let conditions = request.status.and_then(|status| status.conditions);
        if let Some(found) = conditions.into_iter().flatten().next() {
            return (found.type_, found.message.unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} was not answered");
}

async fn node(inside: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(inside.clone());
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    nodes.create(&PostParams::default(), &object).await.unwrap();
}

async fn addresses(inside: &Client, name: &str, addresses: &[(&str, &str)]) {
    let listed: Vec<Value> = addresses
        .iter()
        .map(|(type_, address)| json!({ "type": type_, "address": address }))
        .collect();
    let patch = Patch::Merge(json!({ "status": { "addresses": listed } }));
    let nodes: Api<Node> = Api::all(inside.clone());
    let params = PatchParams::default();
    nodes.patch_status(name, &params, &patch).await.unwrap();
}

async fn tenant(bare: &Bare, second: u8) -> (Guarded, Client) {
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    let tenant = Box::pin(Guarded::start(bare, default_kubernetes(), second)).await;
    let inside = tenant.api_server.client().await.unwrap();
    (tenant, inside)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_a_certificate_for_its_own_addresses_and_forged_requests_are_refused() {
    let bare = Box::pin(Bare::start()).await;
    let _operator = bare.operator();
    let (tenant, inside) = tenant(&bare, 150).await;
    let controllers = ["certificatesigningrequest-signing-controller"];
    let signer = BareControllerManager::start(&tenant.api_server, &controllers).await;
    let _signer = signer.unwrap();

    // Before the node is there, and before it has an address.
    let own = ["w1", "10.1.0.1", "fd01::1"];
    let asked = Asked::of("w1", "system:node:w1", &own);
    let early = asked.post(&tenant).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    node(&inside, "w1").await;
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let waiting = requests.get(&early).await.unwrap().status;
    assert!(
        waiting.is_none_or(|status| status.conditions.is_none_or(|found| found.is_empty())),
        "answered without a node"
    );
    let w1 = [
        ("Hostname", "w1"),
        ("InternalIP", "10.1.0.1"),
        ("InternalIP", "fd01::1"),
    ];
    addresses(&inside, "w1", &w1).await;
    assert_eq!(answer(&inside, &early).await.0, "Approved");

    let begun = Instant::now();
    let name = asked.post(&tenant).await;
    assert_eq!(answer(&inside, &name).await.0, "Approved");
    println!("approved after {:?}", begun.elapsed());
    until("it is signed", async || {
        let status = requests.get(&name).await.unwrap().status.unwrap();
        status.certificate.is_some()
    })
    .await;
    let status = requests.get(&name).await.unwrap().status.unwrap();
    let authority = authority(&bare).await;
    for host in own {
        assert!(verifies(
            &authority,
            &status.certificate.as_ref().unwrap().0,
            host
        ));
    }
    assert!(!verifies(
        &authority,
        &status.certificate.as_ref().unwrap().0,
        "10.1.0.2"
    ));

    forged(&bare, &tenant, &inside).await;
    told(&bare).await;
}

/// `w2` says in its own status that everything is its own.
async fn forged(bare: &Bare, tenant: &Guarded, inside: &Client) {
    node(inside, "w2").await;
    let service = bare.tenants("a").get("one").await.unwrap().status.unwrap();
    let endpoint = service.control_plane_endpoint.unwrap();
    let endpoint = endpoint.rsplit_once(':').unwrap().0;
    let claimed = [
        ("InternalIP", "10.1.0.2"),
        ("InternalIP", "10.1.0.1"),
        ("InternalIP", "10.96.0.1"),
        ("InternalIP", "10.96.7.7"),
        ("InternalIP", "127.0.0.1"),
        ("InternalIP", endpoint),
        ("Hostname", "localhost"),
        ("InternalDNS", "kubernetes.default.svc"),
        ("InternalDNS", "one.a.svc"),
        ("InternalDNS", "x.y.svc.cluster.local"),
        ("InternalDNS", "w1"),
    ];
    addresses(inside, "w2", &claimed).await;
    let own = Asked::of("w2", "system:node:w2", &["10.1.0.2"]);
    let name = own.post(tenant).await;
    assert_eq!(answer(inside, &name).await.0, "Approved", "its own");

    let w2 = "system:node:w2";
    let mut cases = vec![
        (
            Asked::of("w2", "system:node:w1", &["10.1.0.1"]),
            "common name",
        ),
        (Asked::of("user:somebody", w2, &["10.1.0.2"]), "only a node"),
        (
            Asked::of("w2", w2, &["10.1.0.2", "root@w2"]),
            "neither a DNS",
        ),
        (Asked::of("w2", w2, &[]), "names no address"),
        (Asked::of("w2", w2, &["10.1.0.2", "10.9.9.9"]), "not among"),
        (Asked::of("w2", w2, &["10.1.0.1"]), "also the Node \"w1\"'s"),
        (Asked::of("w2", w2, &["w1"]), "also the Node \"w1\"'s"),
        (
            Asked::of("w2", w2, &["127.0.0.1"]),
            "no address of one machine",
        ),
        (Asked::of("w2", w2, &["localhost"]), "every machine's own"),
        (Asked::of("w2", w2, &["10.96.0.1"]), "the API server's"),
        (Asked::of("w2", w2, &["10.96.7.7"]), "belongs to Services"),
        (
            Asked::of("w2", w2, &["kubernetes.default.svc"]),
            "the API server's",
        ),
        (Asked::of("w2", w2, &["one.a.svc"]), "the API server's"),
        (
            Asked::of("w2", w2, &["x.y.svc.cluster.local"]),
            "belongs to Services",
        ),
    ];
    let host = [endpoint];
    cases.push((Asked::of("w2", w2, &host), "the API server's"));
    cases.push((
        Asked {
            organization: "system:masters",
            ..Asked::of("w2", w2, &["10.1.0.2"])
        },
        "organization",
    ));
    cases.push((
        Asked {
            usages: &["digital signature", "client auth"],
            ..Asked::of("w2", w2, &["10.1.0.2"])
        },
        "usages",
    ));
    let mut posted = Vec::new();
    for (asked, says) in &cases {
        posted.push((asked.post(tenant).await, asked.hosts, says));
    }
    for (name, hosts, says) in posted {
        let (type_, message) = answer(inside, &name).await;
        assert!(
            type_ == "Denied" && message.contains(*says),
            "{hosts:?}: {type_}: {message}"
        );
    }
    println!("{} forged requests refused", cases.len());
}

async fn told(bare: &Bare) {
    let events: Api<Event> = Api::namespaced(bare.client.clone(), "a");
    until("an event tells of the refusal", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.iter().any(|event| {
            event.reason.as_deref() == Some("ServingCertificateRefused")
                && event.regarding.as_ref().unwrap().name.as_deref() == Some("one")
        })
    })
    .await;
}

async fn authority(bare: &Bare) -> Vec<u8> {
    let secret: Secret = bare.secrets("a").get("one-ca").await.unwrap();
    secret.data.unwrap()["ca.crt"].0.clone()
}

/// Whether a client that believes `authority` takes `certificate` for that of `host`.
fn verifies(authority: &[u8], certificate: &[u8], host: &str) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority).unwrap())
        .unwrap();
    let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
        .build()
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let name = ServerName::try_from(host).unwrap();
    verifier
        .verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
        .is_ok()
}

async fn has_flag(bare: &Bare) -> bool {
    let deployments: Api<Deployment> = Api::namespaced(bare.client.clone(), "a");
    let deployment = deployments.get("one").await.unwrap();
    let spec = deployment.spec.unwrap().template.spec.unwrap();
    let args = spec.containers[0].args.clone().unwrap();
    args.iter().any(|arg| arg.starts_with(FLAG))
}

async fn verified(bare: &Bare) -> Option<bool> {
    let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
    status.kubelets_verified
}

async fn patch_kubelet(bare: &Bare, patches: Value) {
    let spec = json!({ "kubernetes": { "kubelet": { "configurationJSONPatches": patches } } });
    let patch = Patch::Merge(json!({ "spec": spec }));
    let tenants = bare.tenants("a");
    let params = PatchParams::default();
    tenants.patch("one", &params, &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tenants_verify_kubelets_and_those_of_before_do_once_they_are_told_to() {
    let bare = Box::pin(Bare::start()).await;
    let operator = bare.operator();
    let (tenant, inside) = tenant(&bare, 151).await;
    assert!(has_flag(&bare).await);
    assert_eq!(verified(&bare).await, Some(true));

    // As a tenant that was born before there was anything to verify.
    operator.kill();
    let status = Patch::Merge(json!({ "status": { "kubeletsVerified": null } }));
    let params = PatchParams::default();
    let tenants = bare.tenants("a");
    tenants.patch_status("one", &params, &status).await.unwrap();
    let _operator = bare.operator();
    until("it is left as it was", async || {
        verified(&bare).await == Some(false) && !has_flag(&bare).await
    })
    .await;
    // Its nodes get certificates all the same, so that they are ready for it.
    node(&inside, "w1").await;
    addresses(&inside, "w1", &[("InternalIP", "10.1.0.1")]).await;
    let asked = Asked::of("w1", "system:node:w1", &["10.1.0.1"]);
    let name = asked.post(&tenant).await;
    assert_eq!(answer(&inside, &name).await.0, "Approved");
    let on = json!([{ "op": "add", "path": "/serverTLSBootstrap", "value": true }]);
    patch_kubelet(&bare, on).await;
    until("it is told to", async || {
        verified(&bare).await == Some(true) && has_flag(&bare).await
    })
    .await;

    // Who says that kubelets do not ask answers those who do.
    let off = json!([{ "op": "replace", "path": "/serverTLSBootstrap", "value": false }]);
    patch_kubelet(&bare, off).await;
    until("it is told not to", async || {
        verified(&bare).await == Some(false) && !has_flag(&bare).await
    })
    .await;
    let name = asked.post(&tenant).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let status = requests.get(&name).await.unwrap().status;
    let conditions = status.and_then(|status| status.conditions);
    assert!(conditions.is_none_or(|found| found.is_empty()));
}
