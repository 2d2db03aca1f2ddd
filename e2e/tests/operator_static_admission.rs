//! What a tenant's API server refuses by files that no tenant can take away, with the operator's process and an API server
//! that has every flag and file from it.

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

use std::fmt::Debug;
use std::time::{Duration, Instant};

use bare::Bare;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pod::{TenantPod, born, generation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_lab::versions::default_kubernetes;

/// Of the management cluster, as the operator is told (`Bare::operator`).
const MANAGEMENT: &str = "192.0.2.9";
/// Outside of it, until a pool is there.
const OUTSIDE: &str = "203.0.113.9";
/// What is refused is refused within this.
const SOON: Duration = Duration::from_secs(1);
/// An API server looks at its files at least once a minute.
const SLOW: Duration = Duration::from_secs(100);
const NAME: &str = "webhook-urls.stoker.dev.static.k8s.io";

/// Hosts of URLs, as people and others write them.
const REFUSED: [&str; 37] = [
    // Management, and the pod, as addresses.
    MANAGEMENT,
    "192.0.2.255:6443",
    "127.0.0.1",
    "127.8.9.10:8443",
    "[::1]",
    "[0:0:0:0:0:0:0:1]:443",
    "[::ffff:192.0.2.9]",
    "[::ffff:c000:209]",
    "[::FFFF:10.0.0.1]",
    "0.0.0.0",
    "[::]",
    "169.254.169.254",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[::1%2525lo]",
    "224.0.0.1",
    "[ff02::1]",
    "255.255.255.255",
    // What is one of these addresses to some resolver, or once letters are made ASCII.
    "127.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "127.0.0.1.",
    "010.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
    "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
    ":8443",
    // Names beside the pod.
    "localhost",
    "LocalHost.:8443",
    "a.localhost",
    "kubernetes",
    "x.svc",
    "webhook.kube-system.svc.",
    "webhook.kube-system.SVC.cluster.local",
    "etcd-0.cluster.local..",
    "ⓛocalhost",
];

const TAKEN: [&str; 9] = [
    "example.com",
    "EXAMPLE.com.:8443",
    "webhook-1.prod.example.com/validate/it",
    "svc.example.com",
    "localhost.example.com",
    "10.1.2.3",
    OUTSIDE,
    "[2001:db8::9]:8443",
    "127.0.0.1.example.com",
];

fn webhook(name: &str, client: &Value) -> Value {
    json!({
        "name": name, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{
            "apiGroups": ["nobody.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["things"],
        }],
    })
}

fn webhooks<K: DeserializeOwned>(name: &str, hooks: &[Value]) -> K {
    serde_json::from_value(json!({ "metadata": { "name": name }, "webhooks": hooks })).unwrap()
}

fn at(host: &str) -> Value {
    json!({ "url": format!("https://{host}") })
}

fn crd(client: &Value) -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": { "kind": "Thing", "plural": "things" },
            "conversion": {
                "strategy": "Webhook",
                "webhook": { "conversionReviewVersions": ["v1"], "clientConfig": client },
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        },
    }))
    .unwrap()
}

/// Why it was refused; `None` when it was taken.
fn said<K>(answer: Result<K, kube::Error>) -> Option<String> {
    match answer {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message),
        Err(error) => panic!("{error:?}"),
    }
}

async fn create<K>(client: &Client, object: &K) -> Option<String>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>,
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    said(
        Api::all(client.clone())
            .create(&PostParams::default(), object)
            .await,
    )
}

async fn delete<K>(client: &Client, name: &str) -> Option<String>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>,
    K: Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    said(api.delete(name, &DeleteParams::default()).await)
}

/// The refusals of all kinds of objects in which an API server is told whom to dial.
async fn of_all_kinds(client: &Client, config: &Value) -> [Option<String>; 3] {
    let hooks = [
        // One that is good in front of it.
        webhook("good.example.com", &at("example.com")),
        webhook("asked.example.com", config),
    ];
    let validating: ValidatingWebhookConfiguration = webhooks("asked", &hooks);
    let mutating: MutatingWebhookConfiguration = webhooks("asked", &hooks);
    let said = [
        create(client, &validating).await,
        create(client, &mutating).await,
        create(client, &crd(config)).await,
    ];
    let [one, two, three] = &said;
    if one.is_none() {
        delete::<ValidatingWebhookConfiguration>(client, "asked").await;
    }
    if two.is_none() {
        delete::<MutatingWebhookConfiguration>(client, "asked").await;
    }
    if three.is_none() {
        delete::<CustomResourceDefinition>(client, "things.example.com").await;
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        while crds.get_opt("things.example.com").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    said
}

/// Somebody with all rights inside the tenant.
async fn administrator(pod: &TenantPod) -> Client {
    let accounts: Api<ServiceAccount> = Api::namespaced(pod.inside.clone(), "default");
    let account = json!({ "metadata": { "name": "boss" } });
    let account = serde_json::from_value(account).unwrap();
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "boss" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": "default", "name": "boss" }],
    }))
    .unwrap();
    assert_eq!(create(&pod.inside, &binding).await, None);
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } }))
            .unwrap();
    let made = accounts
        .create_token_request("boss", &PostParams::default(), &request)
        .await;
    pod.with_token(&made.unwrap().status.unwrap().token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_by_url_to_management_is_refused_at_once_by_what_no_tenant_can_take_away() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let gates = json!({ "featureGates": { "ManifestBasedAdmissionControlConfig": true } });
    born(&bare, default_kubernetes(), json!({ "kubernetes": gates })).await;
    let pod = TenantPod::start(&bare, default_kubernetes(), 178).await;
    let admin = administrator(&pod).await;

    refused_at_once(&admin).await;
    for host in TAKEN {
        let said = of_all_kinds(&admin, &at(host)).await;
        assert_eq!(said, [None, None, None], "{host}");
    }
    let service = json!({ "service": { "namespace": "default", "name": "hook" } });
    assert_eq!(of_all_kinds(&admin, &service).await, [None, None, None]);

    unseen_and_untouched(&admin).await;
    // The operator's own credential is bound by it too.
    refused_at_once(&pod.inside).await;
    networks_change(&bare, &pod, &admin).await;
}

async fn refused_at_once(client: &Client) {
    let mut slowest = Duration::ZERO;
    for host in REFUSED {
        let begun = Instant::now();
        let said = of_all_kinds(client, &at(host)).await;
        let took = begun.elapsed();
        slowest = slowest.max(took);
        for said in said {
            let said = said.unwrap_or_else(|| panic!("{host} was taken"));
            let known = said.contains("clientConfig.url must not lead to ")
                && said.contains("Name a Service in clientConfig.service instead");
            // Some are no URL to the API server at all.
            assert!(
                known || said.contains("url must be a valid URL"),
                "{host}: {said}"
            );
            assert!(
                !said.contains("192.0.2.0/24") && !said.contains("cidr"),
                "{said}"
            );
        }
        assert!(took < SOON, "{host}: {took:?}");
    }
    println!("the slowest three refusals took {slowest:?}");
}

async fn unseen_and_untouched(admin: &Client) {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(admin.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(admin.clone());
    let seen = policies.list(&ListParams::default()).await.unwrap();
    assert!(seen.items.is_empty(), "{seen:?}");
    let seen = bindings.list(&ListParams::default()).await.unwrap();
    assert!(seen.items.is_empty(), "{seen:?}");
    let gone = |said: Option<String>| said.unwrap().contains("not found");
    assert!(gone(said(policies.get(NAME).await)));
    assert!(gone(delete::<ValidatingAdmissionPolicy>(admin, NAME).await));
    assert!(gone(
        delete::<ValidatingAdmissionPolicyBinding>(admin, NAME).await
    ));
    // Nor can there be another in its place.
    let other = json!({
        "metadata": { "name": NAME },
        "spec": {
            "matchConstraints": { "resourceRules": [] },
            "validations": [{ "expression": "true" }],
        },
    });
    let other: ValidatingAdmissionPolicy = serde_json::from_value(other).unwrap();
    let said = create(admin, &other).await.unwrap();
    assert!(said.contains("static.k8s.io"), "{said}");
    let config = [webhook("asked.example.com", &at(MANAGEMENT))];
    let config: ValidatingWebhookConfiguration = webhooks("asked", &config);
    assert!(create(admin, &config).await.is_some());
}

/// Another pool comes, and its host is closed: API servers learn it as they run, and what is there already can be tidied.
async fn networks_change(bare: &Bare, pod: &TenantPod, admin: &Client) {
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(admin.clone());
    let config = at(&format!("{OUTSIDE}/hook"));
    let earlier: ValidatingWebhookConfiguration =
        webhooks("earlier", &[webhook("one.example.com", &config)]);
    assert_eq!(create(admin, &earlier).await, None);
    let rolled = generation(bare).await;

    let mut spec = bare.data_store_spec();
    spec["endpoints"] = json!([format!("{OUTSIDE}:2379")]);
    let begun = Instant::now();
    bare.data_store("second", spec).await;
    let later: ValidatingWebhookConfiguration =
        webhooks("later", &[webhook("one.example.com", &config)]);
    while create(admin, &later).await.is_none() {
        assert!(begun.elapsed() < SLOW, "{}", pod.container.log());
        assert_eq!(
            delete::<ValidatingWebhookConfiguration>(admin, "later").await,
            None
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("another network was closed after {:?}", begun.elapsed());
    assert_eq!(generation(bare).await, rolled, "no pod was replaced");

    let patch = async |change: Value| {
        let (params, change) = (PatchParams::default(), Patch::Merge(change));
        said(configurations.patch("earlier", &params, &change).await)
    };
    let label = json!({ "metadata": { "labels": { "touched": "yes" } } });
    assert_eq!(patch(label).await, None);
    let hooks = [
        webhook("one.example.com", &config),
        webhook("two.example.com", &config),
    ];
    assert_eq!(patch(json!({ "webhooks": hooks })).await, None);
    let moved = [webhook("one.example.com", &at(MANAGEMENT))];
    let said = patch(json!({ "webhooks": moved })).await.unwrap();
    assert!(
        said.contains(&format!("must not lead to {MANAGEMENT}:")),
        "{said}"
    );
    assert_eq!(
        delete::<ValidatingWebhookConfiguration>(admin, "earlier").await,
        None
    );
    assert!(
        create(admin, &earlier).await.is_some(),
        "it does not come back"
    );
}
