//! `spec.writePermissions` and the guard, on a tenant's real API server without nodes: what is frozen and what goes on, with
//! the guard, without it, and without the operator; and whom nobody may impersonate.

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
#[expect(dead_code, reason = "nobody comes with a token here")]
mod guarded;
#[path = "operator_support/tenant_server.rs"]
mod tenant_server;

use bare::{Bare, Operator, until};
use guarded::{Guarded, permit};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::v1alpha1::VersionState;
use stoker_lab::versions::{default_kubernetes, oldest_kubernetes};

/// What a refusal by the guard says.
const FROZEN: &str = "writes are frozen";

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_frozen_and_thawed_on_the_newest_release() {
    let bare = Box::pin(Bare::start()).await;
    let operator = start(&bare).await;
    let mut tenant = Guarded::start(&bare, default_kubernetes(), 140).await;
    frozen_by_kind(&bare, &tenant).await;
    identities_of_the_platform(&tenant, true).await;
    heartbeats_and_questions_go_on(&bare, &tenant).await;
    tenant.stop_guard();
    without_the_guard(&tenant).await;
    drop(operator);
    without_the_guard(&tenant).await;
    tenant.start_guard();
    assert_eq!(
        attempts(&tenant.admin().await).await,
        [true; 3],
        "frozen without an operator"
    );
    let _operator = bare.operator();
    println!(
        "thawed after {:?}",
        permit(&bare, json!(null), "Writable").await
    );
    assert_eq!(attempts(&tenant.admin().await).await, [false; 3]);
    assert_eq!(word(&bare).await, VersionState::Ready);
    figures(&tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_frozen_and_thawed_on_the_oldest_release() {
    let bare = Box::pin(Bare::start()).await;
    let _operator = start(&bare).await;
    let mut tenant = Guarded::start(&bare, oldest_kubernetes(), 141).await;
    frozen_by_kind(&bare, &tenant).await;
    identities_of_the_platform(&tenant, true).await;
    heartbeats_and_questions_go_on(&bare, &tenant).await;
    tenant.stop_guard();
    without_the_guard(&tenant).await;
    // Asked again, the operator says that the guard is away.
    let limited = json!({ "blockCreation": true, "blockUpdate": true, "blockDeletion": false });
    permit(&bare, limited, "GuardUnreachable").await;
    assert_eq!(word(&bare).await, VersionState::WriteLimited);
    tenant.start_guard();
    bare.tenant_reason("a", "one", "WritePermissionsApplied", "WritesLimited")
        .await;
}

async fn start(bare: &Bare) -> Operator {
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    bare.operator()
}

/// Each kind alone, then all; that of before ends with the next one.
async fn frozen_by_kind(bare: &Bare, tenant: &Guarded) {
    let admin = tenant.admin().await;
    assert_eq!(attempts(&admin).await, [false; 3], "nothing is frozen yet");
    let conditions = bare
        .tenants("a")
        .get("one")
        .await
        .unwrap()
        .status
        .unwrap()
        .conditions;
    assert!(
        conditions
            .iter()
            .all(|found| found.type_ != "WritePermissionsApplied")
    );
    for blocked in [
        [true, false, false],
        [false, true, false],
        [false, false, true],
        [true, true, true],
    ] {
        let [creation, update, deletion] = blocked;
        let limited = json!({
            "blockCreation": creation, "blockUpdate": update, "blockDeletion": deletion,
        });
        let took = permit(bare, limited, "WritesLimited").await;
        println!("{blocked:?} after {took:?}");
        assert_eq!(attempts(&admin).await, blocked);
        assert_eq!(word(bare).await, VersionState::WriteLimited);
        let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
        maps.list(&ListParams::default()).await.unwrap();
    }
}

async fn word(bare: &Bare) -> VersionState {
    let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
    let conditions = status.conditions;
    let ready = conditions
        .iter()
        .find(|found| found.type_ == "Ready")
        .unwrap();
    assert_eq!(ready.status, "True", "{ready:?}");
    status.kubernetes_resources.version.status
}

/// Whether creating, changing and deleting is refused, each in every way there is.
async fn attempts(client: &Client) -> [bool; 3] {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (patches, posts) = (PatchParams::apply("test"), PostParams::default());
    let map = |name: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    let typed = |name: &str| serde_json::from_value::<ConfigMap>(map(name)).unwrap();
    let pod = |subresource: &str| format!("/api/v1/namespaces/default/pods/none/{subresource}");

    let deletion = refused(maps.delete("none", &DeleteParams::default()).await);
    let none = ListParams::default().labels("is=none");
    let collection = maps
        .delete_collection(&DeleteParams::default(), &none)
        .await;
    assert_eq!(refused(collection), deletion, "deletecollection");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "none" },
    });
    let eviction = post(client, &pod("eviction"), &eviction).await;
    assert_eq!(refused(eviction), deletion, "eviction");

    let creation = refused(maps.create(&posts, &typed("made")).await);

    let changed = Patch::Merge(json!({ "data": { "a": "b" } }));
    let update = refused(maps.patch("none", &PatchParams::default(), &changed).await);
    let whole = maps.replace("none", &posts, &typed("none")).await;
    assert_eq!(refused(whole), update, "update");
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "none" },
        "target": { "apiVersion": "v1", "kind": "Node", "name": "none" },
    });
    let binding = post(client, &pod("binding"), &binding).await;
    assert_eq!(refused(binding), update, "binding");
    // An apply makes what is not there, about which the API server asks too.
    let name = format!("applied-{}", jiff::Timestamp::now().as_nanosecond());
    let applied = Patch::Apply(map(&name));
    let applied = maps.patch(&name, &patches, &applied).await;
    assert_eq!(refused(applied), creation || update, "apply");
    [creation, update, deletion]
}

/// By the guard, with its reason; any other answer means that it was allowed.
fn refused<T>(answer: Result<T, kube::Error>) -> bool {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            assert!(status.message.contains(FROZEN), "{}", status.message);
            true
        }
        Err(kube::Error::Api(status)) => {
            assert!([404, 409, 422].contains(&status.code), "{status:?}");
            false
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(body).unwrap()).unwrap();
    client.request(request).await
}

/// Whom nobody may impersonate, and whom an administrator may as everywhere.
async fn identities_of_the_platform(tenant: &Guarded, guarded: bool) {
    let whoami = async |user: &str, groups: &[&str]| {
        let maps: Api<ConfigMap> = Api::default_namespaced(tenant.admin_as(user, groups).await);
        maps.list(&ListParams::default()).await
    };
    let users = [
        "stoker-operator",
        "system:apiserver",
        "system:kube-controller-manager",
        "system:kube-scheduler",
        "kube-apiserver-kubelet-client",
    ];
    let all = users.map(|user| (user, vec![])).into_iter();
    for (user, groups) in all.chain([("jane", vec!["dev", "system:masters"])]) {
        let Err(kube::Error::Api(status)) = whoami(user, &groups).await else {
            panic!("{user} {groups:?} is impersonated");
        };
        assert_eq!(status.code, 403, "{user}: {status:?}");
        // Of 1.36 an API server refuses the group by itself, too, in one of two ways to impersonate it.
        let reasons = [
            "identity of the platform",
            "system:masters group is not allowed",
        ];
        let reasoned = reasons.iter().any(|reason| status.message.contains(reason));
        assert!(reasoned || !guarded, "{status:?}");
    }
    // Jane may do nothing, but is Jane; a group of administrators may read.
    let jane = whoami("jane", &["dev"]).await;
    let message = jane.unwrap_err().to_string();
    assert!(message.contains("User \"jane\" cannot list"), "{message}");
    whoami("jane", &["kubeadm:cluster-admins"]).await.unwrap();
}

/// With everything frozen: what is not stored, and what keeps nodes and leaders alive.
async fn heartbeats_and_questions_go_on(bare: &Bare, tenant: &Guarded) {
    let admin = tenant.admin().await;
    // Made by the operator's own kind of identity, which nothing holds up.
    let masters = tenant.api_server.client().await.unwrap();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "leader" },
    });
    let leases = |client: &Client| Api::<Lease>::namespaced(client.clone(), "kube-system");
    made(&leases(&masters), lease.clone()).await;
    let held = Patch::Merge(json!({ "spec": { "holderIdentity": "me" } }));
    let params = PatchParams::default();
    leases(&admin)
        .patch("leader", &params, &held)
        .await
        .unwrap();
    let stolen = leases(&admin)
        .delete("leader", &DeleteParams::default())
        .await;
    assert!(refused(stolen), "a lease can be renewed, not deleted");

    let nodes = |client: &Client| Api::<Node>::all(client.clone());
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    made(&nodes(&masters), node).await;
    let kubelet = tenant.user("system:node:n1", "system:nodes").await;
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    let ready = Patch::Strategic(ready);
    nodes(&kubelet)
        .patch_status("n1", &params, &ready)
        .await
        .unwrap();
    assert!(refused(
        nodes(&admin).patch_status("n1", &params, &ready).await
    ));
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    assert!(refused(nodes(&kubelet).patch("n1", &params, &label).await));

    let question =
        json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let reviews: Api<SelfSubjectAccessReview> = Api::all(admin.clone());
    let question = serde_json::from_value(question).unwrap();
    reviews
        .create(&PostParams::default(), &question)
        .await
        .unwrap();
    let accounts = |client: &Client| Api::<ServiceAccount>::namespaced(client.clone(), "default");
    let account =
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "app" } });
    made(&accounts(&masters), account).await;
    let token = TokenRequest::default();
    let token = accounts(&admin)
        .create_token_request("app", &PostParams::default(), &token)
        .await;
    assert!(token.is_ok(), "{token:?}");

    // What the operator keeps there comes back all the same.
    let maps: Api<ConfigMap> = Api::namespaced(masters, "kube-system");
    maps.delete("kubeadm-config", &DeleteParams::default())
        .await
        .unwrap();
    until("kubeadm-config is back", async || {
        maps.get_opt("kubeadm-config").await.unwrap().is_some()
    })
    .await;
    assert_eq!(word(bare).await, VersionState::WriteLimited);
}

async fn made<K>(objects: &Api<K>, object: Value)
where
    K: Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(object).unwrap();
    objects
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

/// Reads, heartbeats and the operator go on; what the guard refuses stays refused, as an error of the API server.
async fn without_the_guard(tenant: &Guarded) {
    let admin = tenant.admin().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    maps.list(&ListParams::default()).await.unwrap();
    let answer = maps.delete("none", &DeleteParams::default()).await;
    assert!(
        matches!(&answer, Err(kube::Error::Api(status)) if status.code == 500),
        "{answer:?}"
    );
    identities_of_the_platform(tenant, false).await;
    let leases: Api<Lease> = Api::namespaced(admin, "kube-system");
    let held = Patch::Merge(json!({ "spec": { "holderIdentity": "you" } }));
    leases
        .patch("leader", &PatchParams::default(), &held)
        .await
        .unwrap();
    let masters = tenant.api_server.client().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(masters);
    let patch = Patch::Merge(json!({ "data": { "a": "b" } }));
    let name = "kube-root-ca.crt";
    let written = maps.patch(name, &PatchParams::default(), &patch).await;
    assert!(
        written.is_ok() || matches!(&written, Err(kube::Error::Api(status)) if status.code == 404),
        "{written:?}"
    );
}

/// What a request pays, as the API server itself counts it.
async fn figures(tenant: &Guarded) {
    let client = tenant.api_server.client().await.unwrap();
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    for metric in [
        "apiserver_authorization_match_condition_evaluation_seconds",
        "apiserver_authorization_webhook_duration_seconds",
    ] {
        let value = |part: &str, name: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(&format!("{metric}_{part}{{")));
            let lines = lines.filter(|line| line.contains(name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum::<f64>()
        };
        for name in ["platform-identities", "write-freeze"] {
            let (sum, count) = (value("sum", name), value("count", name));
            println!("{metric} {name}: {:.1} µs of {count}", sum / count * 1e6);
        }
    }
    println!("warden (not optimized): {} KiB", tenant.memory());
}
