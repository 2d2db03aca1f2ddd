//! Machines that join by a `JoinToken`, on a tenant's real API server with its real controller manager: who has the token
//! becomes a node, gets what the token gives, and everything else that one can try with it is refused with its reason.

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
#[path = "operator_support/joining.rs"]
mod joining;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;

use std::time::{Duration, Instant};

use bare::{Bare, built, until};
use guarded::Guarded;
use joining::{Asked, answer, authenticates, bearer, condition, credential, joined, make, node};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use stoker_api::labels::{JOINERS, JOINING};
use stoker_api::v1alpha1::JoinToken;
use stoker_lab::bare::BareControllerManager;
use stoker_lab::versions::default_kubernetes;
use stoker_pki::BootstrapToken;

/// Those that have to do with tokens and requests; the second approves what kubeadm's tokens ask.
const CONTROLLERS: [&str; 4] = [
    "certificatesigningrequest-signing-controller",
    "certificatesigningrequest-approving-controller",
    "bootstrap-signer-controller",
    "token-cleaner-controller",
];

/// A tenant with a controller manager, on an address of this test alone.
async fn tenant(bare: &Bare, second: u8) -> (Guarded, Client, BareControllerManager) {
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    let tenant = Box::pin(Guarded::start(bare, default_kubernetes(), second)).await;
    let inside = tenant.api_server.client().await.unwrap();
    let controllers = BareControllerManager::start(&tenant.api_server, &CONTROLLERS).await;
    (tenant, inside, controllers.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_its_machines_in_gives_them_what_it_says_and_ends() {
    let bare = Box::pin(Bare::start()).await;
    let _operator = bare.operator();
    let (tenant, inside, _controllers) = tenant(&bare, 160).await;
    let begun = Instant::now();
    make(&bare, "short", json!({ "expirationSeconds": 60 })).await;
    let spec = json!({
        "uses": 2,
        "labels": { "pool": "gpu", "node-restriction.kubernetes.io/pool": "gpu" },
        "taints": [{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }],
        "nodeNetworks": ["10.1.0.0/16"],
        "devices": { "nvidia.com/gpu": 2 },
    });
    make(&bare, "workers", spec).await;
    let (short, workers) = (
        credential(&bare, "short").await,
        credential(&bare, "workers").await,
    );
    println!("published after {:?}", begun.elapsed());
    assert!(authenticates(&tenant.api_server, &short).await);
    assert!(
        !authenticates(&bare.api_server, &short).await,
        "it is of one tenant"
    );
    stokerctl_prints_the_line(&bare).await;
    let joiner = bearer(&tenant.api_server, &workers.token.text()).await;

    let first = Asked::of("w1");
    let asked = Instant::now();
    let name = first.post(&joiner).await.unwrap();
    assert_eq!(answer(&inside, &name).await.0, "Approved");
    println!("let in after {:?}", asked.elapsed());
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    until("it is signed", async || {
        let status = requests.get(&name).await.unwrap().status.unwrap();
        status.certificate.is_some()
    })
    .await;
    assert_eq!(joined(&bare, "workers").await, (1, vec!["w1".to_owned()]));
    // Its answer was lost: it asks again with the same key, and takes no second place.
    let again = first.post(&joiner).await.unwrap();
    assert_eq!(answer(&inside, &again).await.0, "Approved");
    assert_eq!(joined(&bare, "workers").await.0, 1);

    registers(&inside, "w1").await;
    has_its_devices(&bare, &inside, "w1").await;
    an_address_beyond_is_refused(&tenant, &inside).await;
    refused(&bare, &tenant, &inside, &joiner).await;

    let second = Asked::of("w2").post(&joiner).await.unwrap();
    assert_eq!(answer(&inside, &second).await.0, "Approved");
    let (type_, message) = answer(&inside, &Asked::of("w3").post(&joiner).await.unwrap()).await;
    assert!(
        type_ == "Denied" && message.contains("2 machines"),
        "{message}"
    );
    node(&inside, "w2").await;
    condition(&bare, "workers", "Exhausted").await;
    until("the token is forgotten", async || {
        !authenticates(&tenant.api_server, &workers).await
    })
    .await;
    ends(&bare, &tenant, &short, begun).await;
    told(&bare).await;
}

async fn stokerctl_prints_the_line(bare: &Bare) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bare.kubeconfig()).unwrap();
    let mut command = tokio::process::Command::new(built("stokerctl"));
    command.arg("--kubeconfig").arg(file.path());
    let arguments = [
        "-n",
        "a",
        "join",
        "one",
        "--ttl=30m",
        "--uses=3",
        "--kubeadm",
    ];
    let output = command.args(arguments).output().await.unwrap();
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{note}");
    assert!(note.contains("3 machines"), "{note}");
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    let tokens = tokens.list(&ListParams::default()).await.unwrap().items;
    let mut tokens = tokens.iter();
    let made = tokens
        .find(|token| token.name_any().starts_with("one-"))
        .unwrap();
    assert_eq!((made.spec.expiration_seconds, made.spec.uses), (1800, 3));
    let token = credential(bare, &made.name_any()).await.token.text();
    let line = String::from_utf8_lossy(&output.stdout);
    assert!(
        line.starts_with("kubeadm join ") && line.contains(&token),
        "{line}"
    );
}

/// It registers with the taint that `stoker-node join` gives it, and gets labels and taints for it.
async fn registers(inside: &Client, name: &str) {
    node(inside, name).await;
    let nodes: Api<Node> = Api::all(inside.clone());
    until("the node has what the token gives", async || {
        let node = nodes.get(name).await.unwrap();
        let taints = node
            .spec
            .clone()
            .unwrap_or_default()
            .taints
            .unwrap_or_default();
        let gpu = taints.iter().find(|taint| taint.key == "gpu");
        let joining = taints.iter().any(|taint| taint.key == JOINING);
        let labels = ["pool", "node-restriction.kubernetes.io/pool"];
        let has = |label: &str| {
            let label = node.labels().get(label);
            label.is_some_and(|value| value == "gpu")
        };
        !joining
            && gpu.is_some_and(|gpu| gpu.value.as_deref() == Some("yes"))
            && labels.into_iter().all(has)
    })
    .await;
}

/// Pods are kept away until as many devices can be given to them as the token says; then that is recorded.
async fn has_its_devices(bare: &Bare, inside: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(inside.clone());
    let waits = async || {
        let taints = nodes
            .get(name)
            .await
            .unwrap()
            .spec
            .and_then(|spec| spec.taints);
        let taints = taints.unwrap_or_default();
        taints
            .iter()
            .any(|taint| taint.key == "nvidia.com/gpu" && taint.value.as_deref() == Some("pending"))
    };
    assert!(waits().await);
    let offer = async |count: &str| {
        let patch = json!({
            "metadata": { "labels": { "nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/gpu.memory": "143771" } },
            "status": { "allocatable": { "nvidia.com/gpu": count }, "capacity": { "nvidia.com/gpu": "2" } },
        });
        let (patch, params) = (Patch::Merge(patch), PatchParams::default());
        nodes.patch(name, &params, &patch).await.unwrap();
        nodes.patch_status(name, &params, &patch).await.unwrap();
    };
    offer("1").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(waits().await, "one of two is not enough");
    offer("2").await;
    until("its devices are there", async || !waits().await).await;
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    until("they are recorded", async || {
        let status = tokens.get("workers").await.unwrap().status.unwrap();
        let devices = status.nodes[0].devices.clone().unwrap_or_default();
        devices.allocatable.get("nvidia.com/gpu") == Some(&2)
            && devices.product.as_deref() == Some("NVIDIA-H200")
            && devices.memory_mib == Some(143_771)
    })
    .await;
}

/// `w1` says in its own status that it has an address that its token is not for.
async fn an_address_beyond_is_refused(tenant: &Guarded, inside: &Client) {
    let addresses =
        ["10.1.0.1", "10.2.0.1"].map(|ip| json!({ "type": "InternalIP", "address": ip }));
    let patch = Patch::Merge(json!({ "status": { "addresses": addresses } }));
    let nodes: Api<Node> = Api::all(inside.clone());
    let params = PatchParams::default();
    nodes.patch_status("w1", &params, &patch).await.unwrap();
    let client = tenant.user("system:node:w1", "system:nodes").await;
    let cases: [(&[&str], &str); 3] = [
        (&["10.1.0.1"], "Approved"),
        (&["10.2.0.1"], "Denied"),
        // What a name leads to is not known.
        (&["w1"], "Denied"),
    ];
    for (hosts, expected) in cases {
        let asked = Asked {
            signer: "kubernetes.io/kubelet-serving",
            hosts,
            usages: &["digital signature", "server auth"],
            ..Asked::of("w1")
        };
        let (type_, message) = answer(inside, &asked.post(&client).await.unwrap()).await;
        assert_eq!(type_, expected, "{hosts:?}: {message}");
    }
}

/// T11: what else one can try with a token that is good.
async fn refused(bare: &Bare, tenant: &Guarded, inside: &Client, joiner: &Client) {
    let cases = [
        (
            Asked {
                organization: "system:masters",
                ..Asked::of("w9")
            },
            "organization",
        ),
        (
            Asked {
                common_name: "kubernetes-admin".to_owned(),
                ..Asked::of("w9")
            },
            "common name",
        ),
        (Asked::of("w1"), "already, with another key"),
        (
            Asked {
                hosts: &["10.1.0.9"],
                ..Asked::of("w9")
            },
            "names addresses",
        ),
        (
            Asked {
                hosts: &["kubernetes.default"],
                ..Asked::of("w9")
            },
            "names addresses",
        ),
        (
            Asked {
                usages: &["client auth", "digital signature", "server auth"],
                ..Asked::of("w9")
            },
            "usages",
        ),
    ];
    for (asked, says) in cases {
        let (type_, message) = answer(inside, &asked.post(joiner).await.unwrap()).await;
        assert!(
            type_ == "Denied" && message.contains(says),
            "{says}: {type_}: {message}"
        );
    }
    // Another signer: nobody approves it.
    let api_client = Asked {
        signer: "kubernetes.io/kube-apiserver-client",
        ..Asked::of("w9")
    };
    let unanswered = api_client.post(joiner).await.unwrap();
    // A token that the tenant's admin has made in our group is no JoinToken.
    let forged = BootstrapToken::generate().unwrap();
    bootstrap_secret(inside, &forged, JOINERS).await;
    let stranger = bearer(&tenant.api_server, &forged.text()).await;
    let posted = Asked::of("w9").post(&stranger).await.unwrap();
    let (type_, message) = answer(inside, &posted).await;
    assert!(
        type_ == "Denied" && message.contains("revoked"),
        "{type_}: {message}"
    );
    // kubeadm's tokens are approved by the controller manager, as ever.
    let kubeadm = BootstrapToken::generate().unwrap();
    let group = "system:bootstrappers:kubeadm:default-node-token";
    bootstrap_secret(inside, &kubeadm, group).await;
    let kubeadm = bearer(&tenant.api_server, &kubeadm.text()).await;
    let posted = Asked::of("w8").post(&kubeadm).await.unwrap();
    let (type_, message) = answer(inside, &posted).await;
    assert!(
        type_ == "Approved" && message.contains("Auto approving"),
        "{type_}: {message}"
    );
    // With a token one reads what a join needs, and nothing else.
    let secrets: Api<Secret> = Api::namespaced(joiner.clone(), "kube-system");
    assert!(secrets.list(&ListParams::default()).await.is_err());
    let nodes: Api<Node> = Api::all(joiner.clone());
    assert!(nodes.delete("w1", &DeleteParams::default()).await.is_err());
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let status = requests.get(&unanswered).await.unwrap().status;
    assert!(status.is_none_or(|status| status.conditions.is_none_or(|all| all.is_empty())));
    assert_eq!(joined(bare, "workers").await.0, 1, "a refusal is no use");
}

async fn bootstrap_secret(inside: &Client, token: &BootstrapToken, group: &str) {
    let secret = json!({
        "metadata": { "name": format!("bootstrap-token-{}", token.id()) },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": token.id(), "token-secret": token.secret(),
            "usage-bootstrap-authentication": "true", "auth-extra-groups": group,
        },
    });
    let secrets: Api<Secret> = Api::namespaced(inside.clone(), "kube-system");
    let secret = serde_json::from_value(secret).unwrap();
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
}

/// T11: after its time.
async fn ends(bare: &Bare, tenant: &Guarded, short: &stoker_pki::JoinCredential, begun: Instant) {
    tokio::time::sleep(Duration::from_secs(61).saturating_sub(begun.elapsed())).await;
    condition(bare, "short", "Expired").await;
    until("the token has ended", async || {
        !authenticates(&tenant.api_server, short).await
    })
    .await;
    let secrets = bare.secrets("a");
    assert!(secrets.get_opt("short-join-token").await.unwrap().is_none());
}

async fn told(bare: &Bare) {
    let events: Api<Event> = Api::namespaced(bare.client.clone(), "a");
    for reason in ["NodeAdmitted", "NodeRefused", "Exhausted", "Expired"] {
        until(&format!("an event says {reason}"), async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            events
                .iter()
                .any(|event| event.reason.as_deref() == Some(reason))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_token_is_revoked_and_a_name_is_free_once_its_node_has_left() {
    let bare = Box::pin(Bare::start()).await;
    let operator = bare.operator();
    let (tenant, inside, _controllers) = tenant(&bare, 161).await;
    make(&bare, "named", json!({ "uses": 3, "nodeNames": ["w1"] })).await;
    let named = credential(&bare, "named").await;
    let joiner = bearer(&tenant.api_server, &named.token.text()).await;
    let (type_, message) = answer(&inside, &Asked::of("w2").post(&joiner).await.unwrap()).await;
    assert!(
        type_ == "Denied" && message.contains("not for a node"),
        "{message}"
    );
    let posted = Asked::of("w1").post(&joiner).await.unwrap();
    assert_eq!(answer(&inside, &posted).await.0, "Approved");
    // A second machine of that name, while the first is about to come, and while it is there.
    let (type_, message) = answer(&inside, &Asked::of("w1").post(&joiner).await.unwrap()).await;
    assert!(
        type_ == "Denied" && message.contains("about to register"),
        "{message}"
    );
    node(&inside, "w1").await;
    let token: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    all_have_registered(&bare, "named").await;
    let (type_, message) = answer(&inside, &Asked::of("w1").post(&joiner).await.unwrap()).await;
    assert!(
        type_ == "Denied" && message.contains("another key"),
        "{message}"
    );
    leaves(&inside, "w1").await;
    let nodes: Api<Node> = Api::all(inside.clone());
    let posted = Asked::of("w1").post(&joiner).await.unwrap();
    assert_eq!(answer(&inside, &posted).await.0, "Approved");
    assert!(nodes.get_opt("w1").await.unwrap().is_none(), "it has left");

    // Without the operator nobody is let in, and what was asked meanwhile is answered once it is back.
    operator.kill();
    let late = Asked::of("w2").post(&joiner).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let status = requests
        .get(&late)
        .await
        .unwrap()
        .status
        .unwrap_or_default();
    assert!(status.conditions.unwrap_or_default().is_empty());
    let _operator = bare.operator();
    assert_eq!(answer(&inside, &late).await.0, "Denied");

    // What to type is made anew when it is lost, with the same token.
    let secrets = bare.secrets("a");
    let params = DeleteParams::default();
    secrets.delete("named-join-token", &params).await.unwrap();
    until("the Secret is back", async || {
        secrets.get_opt("named-join-token").await.unwrap().is_some()
    })
    .await;
    condition(&bare, "named", "Available").await;
    let renewed = credential(&bare, "named").await;
    assert_ne!(
        renewed.token, named.token,
        "what is lost may be in others' hands"
    );
    until("the lost one is revoked", async || {
        !authenticates(&tenant.api_server, &named).await
    })
    .await;

    another_token_takes_the_name(&bare, &tenant, &inside).await;

    token.delete("named", &params).await.unwrap();
    until("the token is gone", async || {
        token.get_opt("named").await.unwrap().is_none()
    })
    .await;
    assert!(secrets.get_opt("named-join-token").await.unwrap().is_none());
    let inner: Api<Secret> = Api::namespaced(inside.clone(), "kube-system");
    let name = format!("bootstrap-token-{}", renewed.token.id());
    assert!(inner.get_opt(&name).await.unwrap().is_none());
    until("it lets nobody in", async || {
        !authenticates(&tenant.api_server, &renewed).await
    })
    .await;
}

async fn all_have_registered(bare: &Bare, token: &str) {
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    until("they have registered", async || {
        let status = tokens.get(token).await.unwrap().status.unwrap();
        let mut nodes = status.nodes.iter();
        nodes.all(|node| node.registration_time.is_some())
    })
    .await;
}

/// As `stoker-node leave` says it.
async fn leaves(inside: &Client, name: &str) {
    let left = Patch::Merge(json!({ "metadata": { "annotations": { "stoker.dev/left": "now" } } }));
    let nodes: Api<Node> = Api::all(inside.clone());
    let params = PatchParams::default();
    nodes.patch(name, &params, &left).await.unwrap();
}

/// What the former one gave `w1` is forgotten for good. The latter one is deleted before the machine has come, and stays
/// until it has.
async fn another_token_takes_the_name(bare: &Bare, tenant: &Guarded, inside: &Client) {
    node(inside, "w1").await;
    all_have_registered(bare, "named").await;
    leaves(inside, "w1").await;
    make(bare, "later", json!({ "uses": 1 })).await;
    let later = credential(bare, "later").await;
    let joiner = bearer(&tenant.api_server, &later.token.text()).await;
    let posted = Asked::of("w1").post(&joiner).await.unwrap();
    assert_eq!(answer(inside, &posted).await.0, "Approved");
    assert_eq!(joined(bare, "later").await, (1, vec!["w1".to_owned()]));
    assert_eq!(joined(bare, "named").await, (2, Vec::new()));

    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    let params = DeleteParams::default();
    tokens.delete("later", &params).await.unwrap();
    condition(bare, "later", "RevocationPending").await;
    until("it lets nobody in", async || {
        !authenticates(&tenant.api_server, &later).await
    })
    .await;
    let secrets = bare.secrets("a");
    assert!(secrets.get_opt("later-join-token").await.unwrap().is_none());
    node(inside, "w1").await;
    until("it is gone", async || {
        tokens.get_opt("later").await.unwrap().is_none()
    })
    .await;
    let nodes: Api<Node> = Api::all(inside.clone());
    let spec = nodes.get("w1").await.unwrap().spec.unwrap_or_default();
    let taints = spec.taints.unwrap_or_default();
    assert!(
        !taints.iter().any(|taint| taint.key == JOINING),
        "{taints:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_waits_for_its_tenant_and_goes_with_it() {
    let bare = Box::pin(Bare::start()).await;
    let _operator = bare.operator();
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    make(&bare, "early", json!({})).await;
    condition(&bare, "early", "TenantNotFound").await;
    bare.tenant("a", "one", json!({})).await;
    condition(&bare, "early", "TenantNotReady").await;
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    let token = tokens.get("early").await.unwrap();
    let owner = bare.tenants("a").get("one").await.unwrap().uid();
    assert_eq!(token.owner_references()[0].uid, owner.unwrap());
    let params = DeleteParams::default();
    tokens.delete("early", &params).await.unwrap();
    until("it is let go", async || {
        tokens.get_opt("early").await.unwrap().is_none()
    })
    .await;
}
