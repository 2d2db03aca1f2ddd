//! The operator's work on a real API server with the rights of the installed operator and no others, and whether it uses
//! all of them: what it asks for in the life of a tenant is compared with the table that the roles are made from.

// The operator's whole work is one future, which a runtime of this process takes.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "the operator's own process is not used here")]
mod bare;

#[path = "support/manifests.rs"]
mod manifests;
#[path = "operator_support/tls_route.rs"]
mod tls_route;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bare::{Bare, until};
use clap::Parser as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{JoinToken, KubeconfigGenerator};
use stoker_kube::Election;
use stoker_operator::admission::Reviewer;
use stoker_operator::args::Args;
use stoker_operator::rbac::rules;

const ACCOUNT: &str = "system:serviceaccount:stoker-system:stoker-operator";

/// Verbs and resources that were asked for.
type Asked = Arc<Mutex<BTreeSet<(&'static str, &'static str)>>>;

/// Rights that this life of a tenant does not use.
const UNUSED: [(&str, &str, &str); 7] = [
    ("list", "networkpolicies", "a watch that starts over"),
    ("get", "datastores", "a status that was outrun"),
    ("get", "kubeconfiggenerators", "a status that was outrun"),
    ("get", "configmaps", "a deletion that was outrun"),
    ("get", "poddisruptionbudgets", "a deletion that was outrun"),
    ("get", "services", "a pool that is named by its Service"),
    (
        "update",
        "tenantcontrolplanes/finalizers",
        "looked at by admission alone",
    ),
];

/// Roles, bindings and the webhook's configuration of the installation manifest.
async fn install_roles(client: &Client) {
    let manifest = include_str!("../../manifests/install.yaml");
    manifests::create(client, manifest, &["rbac.", "admissionregistration."]).await;
}

/// A client with the rights of the installed operator.
async fn restricted(kubeconfig: &str, asked: &Asked) -> Client {
    let mut kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    for user in &mut kubeconfig.auth_infos {
        let user = user.auth_info.as_mut().unwrap();
        user.impersonate = Some(ACCOUNT.to_owned());
    }
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let asked = asked.clone();
    let count = move |verb, resource, _: stoker_kube::Exchange| {
        asked.lock().unwrap().insert((verb, resource));
    };
    stoker_kube::management_client(config.unwrap(), Arc::new(count)).unwrap()
}

/// Has a spec reviewed that refers to all that one can, and the webhook's certificates kept.
async fn review(client: Client, asked: &Asked) {
    let args = Args::parse_from(["stoker-operator"]);
    let reviewer = Reviewer::new(client, &args, Arc::default());
    let change = json!({ "controlPlane": {
        "ingress": { "hostname": "api.example.com" },
        "deployment": { "runtimeClassName": "any", "serviceAccountName": "any" },
    } });
    let mut tenant = bare::tenants::smallest("one", "v1.36.3", "ClusterIP", &change);
    tenant["metadata"]["namespace"] = json!("default");
    let review = json!({ "request": { "uid": "any", "object": tenant } });
    let answer = reviewer.answer(review.to_string().as_bytes()).await;
    let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let unseen = answer["response"]["warnings"].to_string();
    assert!(!unseen.contains("unseen"), "{answer}");
    until("an authority is trusted", async || {
        let what = ("apply", "validatingwebhookconfigurations");
        asked.lock().unwrap().contains(&what)
    })
    .await;
}

/// Holds the lease and works until dropped.
async fn operate(client: Client) {
    let election = Election::new(client.clone(), "stoker-system", "stoker", "me");
    let held = election.acquire().await.unwrap();
    let args = Args::parse_from(["stoker-operator", "--webhook-bind-address=127.0.0.1:0"]);
    let work = stoker_operator::run::work(
        args,
        client,
        Arc::new(stoker_kube::tenant_client),
        Arc::default(),
        Arc::default(),
    );
    tokio::select! {
        ended = Box::pin(work) => panic!("the work ended: {ended:?}"),
        lost = held.hold() => panic!("the lease is lost: {lost:?}"),
    }
}

async fn change(bare: &Bare, spec: Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let tenants = bare.tenants("a");
    let params = PatchParams::default();
    tenants.patch("one", &params, &patch).await.unwrap();
}

/// Reached by an Ingress, then by a `TLSRoute`, then by neither.
async fn routes_of_a_tenant(bare: &Bare, asked: &Asked) {
    bare.create_crd(tls_route::crd(&["v1"])).await;
    let route = |ingress: Value, gateway: Value| {
        change(
            bare,
            json!({ "controlPlane": { "ingress": ingress, "gateway": gateway } }),
        )
    };
    let did = async |verb, resource| {
        let what = format!("{verb} {resource}");
        until(&what, async || {
            asked.lock().unwrap().contains(&(verb, resource))
        })
        .await;
    };
    route(json!({ "hostname": "api.example.com" }), Value::Null).await;
    did("apply", "ingresses").await;
    did("watch", "ingresses").await;
    let gateway = json!({ "hostname": "api.example.com", "parentRefs": [{ "name": "public" }] });
    route(Value::Null, gateway).await;
    did("delete", "ingresses").await;
    did("apply", "tlsroutes").await;
    did("watch", "tlsroutes").await;
    route(Value::Null, Value::Null).await;
    did("delete", "tlsroutes").await;
}

/// Born, scaled, given another certificate while a pod runs, and deleted with its namespace.
async fn life_of_a_tenant(bare: &Bare, asked: &Asked) {
    bare.data_store("default", bare.data_store_spec()).await;
    bare.namespace("a").await;
    let replicas = |count: i32| json!({ "controlPlane": { "deployment": { "replicas": count } } });
    bare.tenant("a", "one", replicas(2)).await;
    bare.tenant_reason("a", "one", "ControlPlaneApplied", "Applied")
        .await;
    life_of_a_generator(bare).await;
    life_of_a_token(bare).await;
    let pods: Api<Pod> = Api::namespaced(bare.client.clone(), "a");
    let pod = json!({
        "metadata": { "name": "one", "labels": {
            "stoker.dev/name": "one", "app.kubernetes.io/managed-by": "stoker",
        }},
        "spec": { "nodeName": "node", "containers": [{ "name": "one", "image": "one" }] },
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(bare.client.clone(), "a");
    assert!(budgets.get_opt("one").await.unwrap().is_some());
    change(bare, replicas(1)).await;
    until("the budget is gone", async || {
        budgets.get_opt("one").await.unwrap().is_none()
    })
    .await;
    routes_of_a_tenant(bare, asked).await;
    change(
        bare,
        json!({ "networkProfile": { "certSANs": ["another.example.com"] } }),
    )
    .await;
    until("the pod is told of the new certificate", async || {
        asked.lock().unwrap().contains(&("patch", "pods"))
    })
    .await;
    let (tenants, params) = (bare.tenants("a"), DeleteParams::default());
    let namespaces: Api<Namespace> = Api::all(bare.client.clone());
    namespaces.delete("a", &params).await.unwrap();
    pods.delete("one", &params).await.unwrap();
    until("the pod is hurried", async || {
        asked.lock().unwrap().contains(&("delete", "pods"))
    })
    .await;
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("one", &at_once).await.unwrap();
    until("the tenant is gone", async || {
        tenants.get_opt("one").await.unwrap().is_none()
    })
    .await;
    until("the lease is renewed", async || {
        asked.lock().unwrap().contains(&("update", "leases"))
    })
    .await;
}

/// Selects by namespace, makes a kubeconfig and takes it along.
async fn life_of_a_generator(bare: &Bare) {
    let generators: Api<KubeconfigGenerator> = Api::all(bare.client.clone());
    let generator = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "KubeconfigGenerator",
        "metadata": { "name": "audit" },
        "spec": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "a" } },
            "user": { "stringValue": "auditor" },
        },
    });
    let generator = serde_json::from_value(generator).unwrap();
    let params = PostParams::default();
    generators.create(&params, &generator).await.unwrap();
    let secrets = bare.secrets("a");
    until("the kubeconfig is there", async || {
        secrets.get_opt("one-audit").await.unwrap().is_some()
    })
    .await;
    let params = DeleteParams::default();
    generators.delete("audit", &params).await.unwrap();
    until("the generator is gone", async || {
        generators.get_opt("audit").await.unwrap().is_none()
    })
    .await;
    assert!(secrets.get_opt("one-audit").await.unwrap().is_none());
}

/// Waits for its tenant, and is let go.
async fn life_of_a_token(bare: &Bare) {
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    let token = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
        "metadata": { "name": "workers" }, "spec": { "tenantControlPlane": "one" },
    });
    let token = serde_json::from_value(token).unwrap();
    let params = PostParams::default();
    tokens.create(&params, &token).await.unwrap();
    until("it says what it waits for", async || {
        let status = tokens.get("workers").await.unwrap().status;
        status.is_some_and(|status| !status.conditions.is_empty())
    })
    .await;
    let params = DeleteParams::default();
    tokens.delete("workers", &params).await.unwrap();
    until("the token is gone", async || {
        tokens.get_opt("workers").await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_needs_every_right_that_it_has_and_no_other() {
    let bare = Bare::start().await;
    install_roles(&bare.client).await;
    let asked = Asked::default();
    let client = restricted(bare.kubeconfig(), &asked).await;
    let operator = tokio::spawn(operate(client.clone()));
    review(client, &asked).await;
    life_of_a_tenant(&bare, &asked).await;
    assert!(!operator.is_finished());
    operator.abort();

    let mut needed = BTreeSet::new();
    for (verb, resource) in asked.lock().unwrap().iter().copied() {
        match verb {
            // Discovery, which is everybody's.
            _ if resource == "none" => {}
            "apply" => needed.extend([("create", resource), ("patch", resource)]),
            verb => needed.extend([(verb, resource)]),
        }
    }
    println!("{needed:?}");
    let mut granted = BTreeSet::new();
    for rule in rules() {
        for resource in rule.resources {
            // A status is counted as its object's.
            let resource = resource.strip_suffix("/status").unwrap_or(resource);
            granted.extend(rule.verbs.iter().map(|verb| (*verb, resource)));
        }
    }
    // Its own kinds, and the webhook's configuration, are applied as what is there already.
    let created = [
        "datastores",
        "kubeconfiggenerators",
        "tenantcontrolplanes",
        "validatingwebhookconfigurations",
    ]
    .map(|resource| ("create", resource));
    let beyond: Vec<_> = needed
        .difference(&granted)
        .filter(|right| !created.contains(right))
        .collect();
    assert!(beyond.is_empty(), "asked for and not granted: {beyond:?}");
    let known = UNUSED.map(|(verb, resource, _)| (verb, resource));
    let idle: Vec<_> = granted
        .difference(&needed)
        .filter(|right| !known.contains(right))
        .collect();
    assert!(idle.is_empty(), "granted and not asked for: {idle:?}");
}
