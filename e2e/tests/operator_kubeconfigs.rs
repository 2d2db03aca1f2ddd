//! Kubeconfigs that a generator asks for: made, followed, healed and removed by the operator's process on a real API server,
//! without nodes; and accepted in a TLS handshake by whoever trusts the tenant's authority.

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

use std::sync::Arc;
use std::time::Instant;

use bare::{Bare, until};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{KubeconfigGenerator, KubeconfigGeneratorStatus};
use stoker_pki::{
    Authority, KubeconfigFacts, LeafRequest, LeafState, LeafUsage, leaf_state, not_after,
    parse_kubeconfig,
};
use time::{Duration, OffsetDateTime};

const LIFETIME: i64 = 3600;

struct World {
    bare: Bare,
    generators: Api<KubeconfigGenerator>,
    secrets: Api<Secret>,
}

impl World {
    async fn start() -> Self {
        let bare = Box::pin(Bare::start()).await;
        bare.data_store("default", bare.data_store_spec()).await;
        bare.namespace("a").await;
        Self {
            generators: Api::all(bare.client.clone()),
            secrets: bare.secrets("a"),
            bare,
        }
    }

    async fn tenant(&self, name: &str) {
        let bare = &self.bare;
        bare.tenant("a", name, json!({})).await;
        bare.tenant_reason("a", name, "ControlPlaneApplied", "Applied")
            .await;
    }

    async fn generator(&self, name: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "KubeconfigGenerator",
            "metadata": { "name": name },
            "spec": {
                "user": { "stringValue": "auditor" },
                "groups": [{ "stringValue": "ops" }, { "fromDefinition": "metadata.name" }],
                "expirationSeconds": LIFETIME,
            },
        });
        json_patch::merge(&mut object["spec"], &spec);
        let params = PatchParams::apply("test").force();
        let patch = Patch::Apply(object);
        self.generators.patch(name, &params, &patch).await.unwrap();
    }

    async fn status(&self, generator: &str) -> KubeconfigGeneratorStatus {
        let found = self.generators.get(generator).await.unwrap();
        found.status.unwrap_or_default()
    }

    /// The kubeconfig in a Secret, if it is one.
    async fn facts(&self, secret: &str) -> Option<KubeconfigFacts> {
        let found = self.secrets.get_opt(secret).await.unwrap()?;
        let value = found.data?.remove("value")?.0;
        parse_kubeconfig(&String::from_utf8(value).ok()?).ok()
    }

    async fn wait_for(&self, secret: &str) -> KubeconfigFacts {
        until(secret, async || self.facts(secret).await.is_some()).await;
        self.facts(secret).await.unwrap()
    }

    async fn wait_gone(&self, secret: &str) {
        let gone = async || self.secrets.get_opt(secret).await.unwrap().is_none();
        until(&format!("{secret} is gone"), gone).await;
    }

    async fn patch_secret(&self, name: &str, patch: Value) {
        let params = PatchParams::default();
        let patch = Patch::Merge(patch);
        self.secrets.patch(name, &params, &patch).await.unwrap();
    }

    async fn patch_tenant(&self, patch: Value) {
        let tenants = self.bare.tenants("a");
        let params = PatchParams::default();
        let patch = Patch::Merge(patch);
        tenants.patch("one", &params, &patch).await.unwrap();
    }

    async fn label_namespace(&self, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.bare.client.clone());
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let params = PatchParams::default();
        namespaces.patch("a", &params, &patch).await.unwrap();
    }

    async fn authority(&self) -> Authority {
        let [certificate, key] = self.entries("one-ca", ["ca.crt", "ca.key"]).await;
        Authority::from_pem(&certificate, &key).unwrap()
    }

    async fn entries<const N: usize>(&self, secret: &str, names: [&str; N]) -> [String; N] {
        let data = self.secrets.get(secret).await.unwrap().data.unwrap();
        names.map(|name| String::from_utf8(data[name].0.clone()).unwrap())
    }

    /// Whether a server with the tenant's serving certificate and client authority, as its API server is, and a client
    /// with this kubeconfig accept each other.
    async fn handshake(&self, facts: &KubeconfigFacts) -> bool {
        let authority = self.authority().await;
        let [certificate, key] = self
            .entries(
                "one-api-server-certificate",
                ["apiserver.crt", "apiserver.key"],
            )
            .await;
        let clients = WebPkiClientVerifier::builder(Arc::new(trusting(authority.certificate())));
        let server = ServerConfig::builder()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain(&certificate), private(&key))
            .unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(trusting(&facts.authority))
            .with_client_auth_cert(chain(&facts.certificate), private(facts.key.as_pem()))
            .unwrap();
        let host = facts.server.trim_start_matches("https://");
        let host = host.split(':').next().unwrap().to_owned();
        let (near, far) = tokio::io::duplex(1 << 16);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let name = ServerName::try_from(host).unwrap();
        let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        client.is_ok() && server.is_ok()
    }
}

fn trusting(authority: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in chain(authority) {
        roots.add(certificate).unwrap();
    }
    roots
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn private(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Whether the certificate is of exactly this user in exactly these groups.
fn is_of(facts: &KubeconfigFacts, groups: &[&str], authority: &Authority) -> bool {
    let request = LeafRequest {
        common_name: "auditor".into(),
        organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: Duration::seconds(LIFETIME),
    };
    let now = OffsetDateTime::now_utc();
    let (certificate, key) = (&facts.certificate, facts.key.as_pem());
    matches!(
        leaf_state(certificate, key, &request, authority, now),
        LeafState::Valid { .. }
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_is_made_follows_its_tenant_and_is_healed() {
    let world = World::start().await;
    world.generator("audit", json!({})).await;
    let _operator = world.bare.operator();
    let begun = Instant::now();
    world.tenant("one").await;
    let made = world.wait_for("one-audit").await;
    println!("apply to kubeconfig: {:?}", begun.elapsed());
    assert_eq!(made.server, "https://one.a.svc:6443");
    let authority = world.authority().await;
    assert!(is_of(&made, &["ops", "one"], &authority));
    assert!(world.handshake(&made).await);
    let left = not_after(&made.certificate).unwrap() - OffsetDateTime::now_utc();
    assert!(left <= Duration::seconds(LIFETIME), "{left}");
    until("the status counts it", async || {
        let status = world.status("audit").await;
        let ready = status
            .conditions
            .iter()
            .any(|one| one.reason == "Available");
        (status.resources, status.available_resources, ready) == (1, 1, true)
    })
    .await;

    // Deleted, damaged, stripped of its labels: it comes back, and a good certificate stays.
    let old = world.secrets.get("one-audit").await.unwrap().uid();
    let params = DeleteParams::default();
    world.secrets.delete("one-audit", &params).await.unwrap();
    until("the deleted kubeconfig is back", async || {
        let found = world.secrets.get_opt("one-audit").await.unwrap();
        found.is_some_and(|found| found.uid() != old)
    })
    .await;
    world
        .patch_secret("one-audit", json!({ "data": { "value": "Z2FyYmFnZQ==" } }))
        .await;
    let healed = world.wait_for("one-audit").await;
    assert!(world.handshake(&healed).await);
    let labels = json!({ "app.kubernetes.io/managed-by": null, "stoker.dev/managed-by": null });
    world
        .patch_secret("one-audit", json!({ "metadata": { "labels": labels } }))
        .await;
    until("the labels are back", async || {
        let found = world.secrets.get("one-audit").await.unwrap();
        found
            .labels()
            .get("stoker.dev/managed-by")
            .map(String::as_str)
            == Some("audit")
    })
    .await;
    assert_eq!(
        world.wait_for("one-audit").await.certificate,
        healed.certificate
    );

    // Another address, the same certificate; other groups, another one.
    world
        .patch_tenant(json!({ "spec": { "networkProfile": { "port": 7443 } } }))
        .await;
    until("the address has followed", async || {
        let facts = world.facts("one-audit").await;
        facts.is_some_and(|facts| facts.server == "https://one.a.svc:7443")
    })
    .await;
    assert_eq!(
        world.wait_for("one-audit").await.certificate,
        healed.certificate
    );
    world
        .generator("audit", json!({ "groups": [{ "stringValue": "dev" }] }))
        .await;
    until("the groups have followed", async || {
        let facts = world.facts("one-audit").await;
        facts.is_some_and(|facts| is_of(&facts, &["dev"], &authority))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selection_follows_labels_and_what_nobody_asks_for_is_removed() {
    let world = World::start().await;
    let operator = world.bare.operator();
    world.tenant("one").await;
    world.tenant("other").await;
    let gold = json!({ "matchLabels": { "tier": "gold" } });
    world
        .generator("audit", json!({ "tenantControlPlaneSelector": gold }))
        .await;
    until("none is selected", async || {
        let status = world.status("audit").await;
        status.observed_generation == 1 && status.resources == 0
    })
    .await;
    let tier = |tier: Value| json!({ "metadata": { "labels": { "tier": tier } } });
    world.patch_tenant(tier(json!("gold"))).await;
    world.wait_for("one-audit").await;
    world.patch_tenant(tier(Value::Null)).await;
    world.wait_gone("one-audit").await;

    // By the namespace's labels.
    let zone = json!({ "matchExpressions": [{ "key": "zone", "operator": "Exists" }] });
    world
        .generator("audit", json!({ "namespaceSelector": zone }))
        .await;
    world.label_namespace(json!({ "zone": "x" })).await;
    world.wait_for("one-audit").await;
    world.wait_for("other-audit").await;
    world.label_namespace(json!({ "zone": null })).await;
    world.wait_gone("one-audit").await;
    world.wait_gone("other-audit").await;
    world.label_namespace(json!({ "zone": "y" })).await;
    let copied = world.wait_for("one-audit").await;

    // Once the generator is gone its Secrets are too; a copy ends with its certificate.
    let params = DeleteParams::default();
    world.generators.delete("audit", &params).await.unwrap();
    until("the generator is gone", async || {
        world.generators.get_opt("audit").await.unwrap().is_none()
    })
    .await;
    for secret in ["one-audit", "other-audit"] {
        assert!(
            world.secrets.get_opt(secret).await.unwrap().is_none(),
            "{secret}"
        );
    }
    assert!(world.handshake(&copied).await, "nobody can call it back");
    let left = not_after(&copied.certificate).unwrap() - OffsetDateTime::now_utc();
    println!("a copied kubeconfig works for {left} more");
    assert!(left <= Duration::seconds(LIFETIME), "{left}");

    // Deleted while nobody looks.
    world.generator("later", json!({})).await;
    world.wait_for("one-later").await;
    operator.kill();
    world.generators.delete("later", &params).await.unwrap();
    world.generator("stays", json!({})).await;
    let _operator = world.bare.operator();
    world.wait_for("one-stays").await;
    world.wait_gone("one-later").await;
    // What it left behind when somebody took its finalizer away.
    let secret = world.secrets.get("one-stays").await.unwrap();
    let mut orphan = secret.clone();
    orphan.metadata.name = Some("one-orphan".into());
    orphan.metadata.resource_version = None;
    orphan.metadata.uid = None;
    let label = orphan
        .labels_mut()
        .get_mut("stoker.dev/managed-by")
        .unwrap();
    "orphan".clone_into(label);
    let params = PostParams::default();
    world.secrets.create(&params, &orphan).await.unwrap();
    world.wait_gone("one-orphan").await;
    assert!(world.facts("one-stays").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_others_is_left_alone_and_named() {
    let world = World::start().await;
    let _operator = world.bare.operator();
    world.tenant("one").await;
    let theirs = json!({
        "metadata": { "name": "one-theirs" }, "stringData": { "value": "precious" },
    });
    let theirs = serde_json::from_value(theirs).unwrap();
    let params = PostParams::default();
    world.secrets.create(&params, &theirs).await.unwrap();
    world.generator("theirs", json!({})).await;
    until("it is named", async || {
        let status = world.status("theirs").await;
        let named = |one: &stoker_api::v1alpha1::KubeconfigGeneratorError| {
            one.resource == "a/one" && one.message.contains("the Secret one-theirs is there")
        };
        status.errors.iter().any(named) && (status.resources, status.available_resources) == (1, 0)
    })
    .await;
    // A group that admission cannot see.
    world
        .patch_tenant(json!({ "metadata": { "annotations": { "rank": "system:masters" } } }))
        .await;
    let group = json!({ "groups": [{ "fromDefinition": "metadata.annotations.rank" }] });
    world.generator("masters", group).await;
    until("it is refused", async || {
        let status = world.status("masters").await;
        let refused = status
            .errors
            .iter()
            .any(|one| one.message.contains("system:masters"));
        refused
            && status
                .conditions
                .iter()
                .any(|one| one.reason == "KubeconfigsFailed")
    })
    .await;
    let params = DeleteParams::default();
    for generator in ["theirs", "masters"] {
        world.generators.delete(generator, &params).await.unwrap();
        until("the generator is gone", async || {
            world.generators.get_opt(generator).await.unwrap().is_none()
        })
        .await;
    }
    let [value] = world.entries("one-theirs", ["value"]).await;
    assert_eq!(value, "precious");
    assert!(
        world
            .secrets
            .get_opt("one-masters")
            .await
            .unwrap()
            .is_none()
    );
}
