//! `stokerctl` as its users run it, against a real API server with a real operator, without nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and shows what the operator said"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "the pool is not looked at here")]
mod bare;
#[path = "support/own_address.rs"]
mod own_address;
#[path = "operator_support/tenant_server.rs"]
#[expect(dead_code, reason = "the tenant listens where the test says")]
mod tenant_server;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use bare::{Bare, built, until};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use own_address::own_address;
use serde_json::{Value, json};
use stoker_lab::credentials::kube_client;
use stoker_pki::{
    Authority, LeafRequest, LeafState, LeafUsage, leaf_state, not_after, parse_kubeconfig,
};
use time::{Duration, OffsetDateTime};

struct Ctl {
    kubeconfig: tempfile::NamedTempFile,
}

impl Ctl {
    fn of(bare: &Bare) -> Self {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), bare.kubeconfig()).unwrap();
        Self { kubeconfig }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(built("stokerctl"));
        command.env("KUBECONFIG", self.kubeconfig.path());
        command.args(arguments).output().unwrap()
    }

    /// What it prints; it must succeed.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Why it does not do it.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

async fn world(change: Value) -> (Bare, Ctl, bare::Operator) {
    let bare = Box::pin(Bare::start()).await;
    bare.data_store("default", bare.data_store_spec()).await;
    let operator = bare.operator();
    bare.namespace("a").await;
    bare.tenant("a", "one", change).await;
    bare.tenant_reason("a", "one", "Ready", "PodsStarting")
        .await;
    let ctl = Ctl::of(&bare);
    (bare, ctl, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_listed_steered_and_explained() {
    let (bare, ctl, _operator) = world(json!({})).await;
    let list = ctl.says(&["list"]);
    assert!(
        list.contains("one") && list.contains("PodsStarting: "),
        "{list}"
    );
    assert!(ctl.says(&["list", "-n", "default"]).is_empty());
    let objects: Value = serde_json::from_str(&ctl.says(&["list", "-o", "json"])).unwrap();
    assert_eq!(objects["items"][0]["metadata"]["name"], "one");
    assert!(
        ctl.says(&["list", "-A", "--not-ready", "-o", "yaml"])
            .contains("name: one")
    );
    until("its events are told", async || {
        ctl.says(&["-n", "a", "events", "one"])
            .contains("tenantcontrolplane/one")
    })
    .await;

    // Paused, the operator leaves it alone; resumed, it heals what happened meanwhile.
    ctl.says(&["-n", "a", "pause", "one", "--reason", "disk swap"]);
    assert!(ctl.says(&["list"]).contains("paused: disk swap"));
    let secrets = bare.secrets("a");
    secrets
        .delete("one-api-server-certificate", &DeleteParams::default())
        .await
        .unwrap();
    ctl.says(&["-n", "a", "scale", "one", "0"]);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(
        secrets
            .get_opt("one-api-server-certificate")
            .await
            .unwrap()
            .is_none()
    );
    ctl.says(&["-n", "a", "resume", "one"]);
    until("the certificate is back", async || {
        secrets
            .get_opt("one-api-server-certificate")
            .await
            .unwrap()
            .is_some()
    })
    .await;
    bare.tenant_reason("a", "one", "Ready", "Sleeping").await;
    assert!(ctl.says(&["list"]).contains("Sleeping"));
    assert!(ctl.says(&["list", "--not-ready"]).is_empty());

    // What cannot be done is said with what to do.
    let cases = [
        (vec!["-n", "a", "logs", "one"], "no control-plane pods"),
        (
            vec!["-n", "b", "logs", "one"],
            "no TenantControlPlane one in namespace b",
        ),
        (vec!["--context", "none", "list"], "no usable kubeconfig"),
        (
            vec!["-n", "a", "kubeconfig", "one", "--for", "2d"],
            "KubeconfigGenerator",
        ),
    ];
    for (arguments, says) in cases {
        let error = ctl.refuses(&arguments);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_ours_is_said_to_be_none() {
    let other = stoker_lab::bare::BareApiServer::start().await.unwrap();
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kubeconfig.path(), other.kubeconfig()).unwrap();
    let error = Ctl { kubeconfig }.refuses(&["list"]);
    assert!(error.contains("is it the management cluster"), "{error}");
}

/// A kubeconfig is accepted by an API server that has the tenant's credentials.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_gets_in_for_a_while() {
    let address = own_address();
    // Of the range of node ports; another one for each run.
    let port = 30_000 + u16::try_from(std::process::id() % 2700).unwrap();
    let change = json!({
        "controlPlane": { "service": { "serviceType": "NodePort" } },
        "networkProfile": { "address": address, "port": port },
    });
    let (bare, ctl, _operator) = world(change).await;
    let address = SocketAddr::new(address, port);
    let server = tenant_server::start(&bare, "a", address).await;
    let admin = server.client().await.unwrap();
    let bindings: Api<ClusterRoleBinding> = Api::all(admin.clone());
    let binding = serde_json::from_value(json!({
        "metadata": { "name": "kubeadm:cluster-admins" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "kubeadm:cluster-admins" }],
    }))
    .unwrap();
    bindings
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();

    let text = ctl.says(&["-n", "a", "kubeconfig", "one", "--for", "10m"]);
    let facts = parse_kubeconfig(&text).unwrap();
    let end = not_after(&facts.certificate).unwrap();
    assert!(end <= OffsetDateTime::now_utc() + Duration::minutes(10));
    assert!(facts.user.starts_with("stokerctl:"), "{}", facts.user);
    let client = kube_client(&text).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client, "kube-system");
    until("kube-system is there and may be read", async || {
        secrets.list(&ListParams::default()).await.is_ok()
    })
    .await;

    // Access ends at once by RBAC, for copies of the kubeconfig too; and by itself.
    bindings
        .delete("kubeadm:cluster-admins", &DeleteParams::default())
        .await
        .unwrap();
    until("the same kubeconfig may do nothing more", async || {
        secrets
            .list(&ListParams::default())
            .await
            .is_err_and(|error| matches!(error, kube::Error::Api(status) if status.is_forbidden()))
    })
    .await;
    bindings
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
    let request = LeafRequest {
        common_name: facts.user.clone(),
        organizations: vec!["kubeadm:cluster-admins".to_owned()],
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: Duration::minutes(10),
    };
    let authority = authority(&bare).await;
    let later = leaf_state(
        &facts.certificate,
        facts.key.as_pem(),
        &request,
        &authority,
        end,
    );
    assert!(matches!(later, LeafState::Reissue(_)), "{later:?}");
}

async fn authority(bare: &Bare) -> Authority {
    let data = bare.secrets("a").get("one-ca").await.unwrap().data.unwrap();
    let text = |name: &str| String::from_utf8(data[name].0.clone()).unwrap();
    Authority::from_pem(&text("ca.crt"), &text("ca.key")).unwrap()
}

/// Every converted sample is taken by the API server, with no field that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn converted_manifests_are_accepted() {
    let bare = Box::pin(Bare::start()).await;
    bare.namespace("tenants").await;
    let ctl = Ctl::of(&bare);
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/stokerctl/tests/kamaji");
    let mut count = 0;
    for entry in std::fs::read_dir(samples).unwrap() {
        let path = entry.unwrap().path();
        let text = ctl.says(&["convert", "-f", path.to_str().unwrap()]);
        let objects: Vec<DynamicObject> = serde_saphyr::from_multiple(&text).unwrap();
        for object in objects {
            let types = object.types.clone().unwrap();
            let kind = GroupVersionKind::try_from(&types).unwrap();
            let (resource, _) = kube::discovery::pinned_kind(&bare.client, &kind)
                .await
                .unwrap();
            let api: Api<DynamicObject> = match object.namespace() {
                Some(namespace) => Api::namespaced_with(bare.client.clone(), &namespace, &resource),
                None => Api::all_with(bare.client.clone(), &resource),
            };
            if api.get_opt(&object.name_any()).await.unwrap().is_some() {
                continue;
            }
            let strict = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let answer = api.create(&strict, &object).await;
            assert!(answer.is_ok(), "{}: {answer:?}\n{text}", path.display());
            count += 1;
        }
    }
    assert!(count >= 8, "{count}");
    let strict = ctl.run(&["convert", "--strict", "-f", "/dev/null"]);
    assert!(strict.status.success());
}
