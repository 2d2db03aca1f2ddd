//! A preset of API priority: agents that flood an API server are bounded, people go on; it is healed and it goes.

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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bare::{Bare, until};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use pod::{TenantPod, born, change};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_lab::credentials;
use stoker_lab::versions::default_kubernetes;
use stoker_pki::{Authority, KubeconfigCredentials, KubeconfigRequest, kubeconfig};

/// Of the objects of the preset.
const BACKGROUND: &str = "stoker-background";
const PEOPLE: &str = "stoker-people";

/// More than agents' queues and seats hold.
const AGENTS: usize = 200;
/// A connection of HTTP/2 carries 100 requests at once.
const CLIENTS: usize = 4;
const LOOKS: u16 = 30;

async fn create<K>(api: &Api<K>, object: Value)
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Clients with a token of a new service account that may do everything.
async fn account(pod: &TenantPod, namespace: &str, name: &str) -> Vec<Client> {
    let namespaces: Api<Namespace> = Api::all(pod.inside.clone());
    create(&namespaces, json!({ "metadata": { "name": namespace } })).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(pod.inside.clone(), namespace);
    create(&accounts, json!({ "metadata": { "name": name } })).await;
    let bindings: Api<ClusterRoleBinding> = Api::all(pod.inside.clone());
    create(&bindings, json!({
        "metadata": { "name": format!("{namespace}-{name}") },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": name }],
    }))
    .await;
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } }))
            .unwrap();
    let made = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await;
    let token = made.unwrap().status.unwrap().token;
    (0..CLIENTS).map(|_| pod.with_token(&token)).collect()
}

/// A client of an administrator of the tenant, by certificate.
async fn person(bare: &Bare, pod: &TenantPod, name: &str) -> Client {
    let data = bare.secrets("a").get("one-ca").await.unwrap().data.unwrap();
    let text = |entry: &str| String::from_utf8(data[entry].0.clone()).unwrap();
    let authority = Authority::from_pem(&text("ca.crt"), &text("ca.key")).unwrap();
    let leaf = credentials::client(&authority, name, Some("kubeadm:cluster-admins")).unwrap();
    let text = kubeconfig(&KubeconfigRequest {
        cluster: "one".to_owned(),
        server: format!("https://{}:6443", pod.address),
        tls_server_name: Some("one.a.svc".to_owned()),
        authority: text("ca.crt"),
        user: name.to_owned(),
        credentials: KubeconfigCredentials::Inline(leaf),
    });
    credentials::kube_client(&text).await.unwrap()
}

/// What an API server has counted, summed over all lines of that name with these labels.
async fn counted(pod: &TenantPod, name: &str, labels: &[(&str, &str)]) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = pod.inside.request_text(request).await.unwrap();
    let wanted = |line: &&str| {
        line.split('{').next() == Some(name)
            && labels
                .iter()
                .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    let values = text
        .lines()
        .filter(wanted)
        .map(|line| line.rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

/// Agents that list without a pause.
struct Flood {
    ends: Arc<AtomicBool>,
    refused: Arc<AtomicU32>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Flood {
    fn start(clients: &[Client]) -> Self {
        let (ends, refused) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let one = |number: usize| {
            let client = clients[number % CLIENTS].clone();
            let (ends, refused) = (ends.clone(), refused.clone());
            tokio::spawn(async move {
                let maps: Api<ConfigMap> = Api::namespaced(client, "default");
                while !ends.load(Ordering::Relaxed) {
                    if let Err(kube::Error::Api(status)) = maps.list(&ListParams::default()).await {
                        assert_eq!(status.code, 429, "{status:?}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        // What `Retry-After` says, which clients of Kubernetes keep to.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            })
        };
        let tasks = (0..AGENTS).map(one).collect();
        Self {
            ends,
            refused,
            tasks,
        }
    }

    /// How often they were refused.
    async fn end(self) -> u32 {
        self.ends.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.refused.load(Ordering::Relaxed)
    }
}

/// Median and worst time of a person's look at a few objects.
async fn looks(person: &Client) -> (Duration, Duration) {
    let maps: Api<ConfigMap> = Api::namespaced(person.clone(), "kube-system");
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let begun = Instant::now();
        maps.list(&ListParams::default())
            .await
            .expect("a person is refused");
        times.push(begun.elapsed());
    }
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_flood_are_bounded_and_people_go_on() {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    // So few that a test can fill them.
    let arguments = [
        "--max-requests-inflight=20",
        "--max-mutating-requests-inflight=10",
    ];
    born(
        &bare,
        default_kubernetes(),
        json!({
            "controlPlane": { "deployment": { "extraArgs": { "apiServer": arguments } } },
        }),
    )
    .await;
    let pod = TenantPod::start(&bare, default_kubernetes(), 176).await;
    bare.tenant_reason("a", "one", "TenantConfigured", "Configured")
        .await;
    let agent = account(&pod, "agents", "one").await;
    let person = person(&bare, &pod, "alice").await;
    let maps: Api<ConfigMap> = Api::namespaced(pod.inside.clone(), "default");
    for number in 0..20 {
        let text = "x".repeat(20_000);
        create(
            &maps,
            json!({ "metadata": { "name": format!("big-{number}") }, "data": { "a": text } }),
        )
        .await;
    }

    println!("alone: {:?}", looks(&person).await);
    let flood = Flood::start(&agent);
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!(
        "median and worst look of a person, flooded without a preset: {:?}",
        looks(&person).await
    );
    println!("agents refused: {}", flood.end().await);

    let preset = json!({ "preset": "Agents", "namespaces": ["agents"] });
    change(&bare, json!({ "kubernetes": { "apiPriority": preset } })).await;
    let objects = Objects {
        schemas: Api::all(pod.inside.clone()),
        levels: Api::all(pod.inside.clone()),
    };
    until("the preset is there", async || objects.are_there().await).await;
    agents_keep_to_their_seats(&pod, &agent, &person).await;
    objects.are_healed().await;
    change(&bare, json!({ "kubernetes": { "apiPriority": null } })).await;
    until("the preset goes, and upstream's stay", async || {
        objects.are_gone().await
    })
    .await;
}

async fn agents_keep_to_their_seats(pod: &TenantPod, agent: &[Client], person: &Client) {
    let seats = "apiserver_flowcontrol_nominal_limit_seats";
    let of = [("priority_level", BACKGROUND)];
    until("the API server goes by it", async || {
        counted(pod, seats, &of).await > 0.0
    })
    .await;
    let (bound, all) = (
        counted(pod, seats, &of).await,
        counted(pod, seats, &[]).await,
    );
    println!("seats of agents: {bound} of {all}");

    let flood = Flood::start(agent);
    let dispatched = "apiserver_flowcontrol_dispatched_requests_total";
    let by = [("flow_schema", BACKGROUND)];
    until("agents are told apart", async || {
        counted(pod, dispatched, &by).await > 0.0
    })
    .await;
    println!(
        "median and worst look of a person, flooded with the preset: {:?}",
        looks(person).await
    );
    // They keep to their seats, whatever others leave idle: one request of a list of 20 takes one.
    let executing = "apiserver_flowcontrol_current_executing_seats";
    for _ in 0..20 {
        let now = counted(pod, executing, &of).await;
        assert!(now <= bound, "agents have {now} seats of {bound}");
    }
    let rejected = "apiserver_flowcontrol_rejected_requests_total";
    until("agents are refused", async || {
        counted(pod, rejected, &of).await > 0.0
    })
    .await;
    println!("agents refused: {}", flood.end().await);
    let people = [("priority_level", PEOPLE)];
    assert!(counted(pod, dispatched, &people).await >= f64::from(LOOKS) / 2.0);
    assert!(
        counted(pod, rejected, &people).await < 1.0,
        "people are refused"
    );
}

/// The two kinds inside the tenant.
struct Objects {
    schemas: Api<FlowSchema>,
    levels: Api<PriorityLevelConfiguration>,
}

impl Objects {
    async fn are_there(&self) -> bool {
        for name in [BACKGROUND, PEOPLE] {
            let (schema, level) = (self.schemas.get_opt(name), self.levels.get_opt(name));
            if schema.await.unwrap().is_none() || level.await.unwrap().is_none() {
                return false;
            }
        }
        true
    }

    /// They are the operator's: whatever becomes of them is healed.
    async fn are_healed(&self) {
        let delete = DeleteParams::default();
        self.schemas.delete(BACKGROUND, &delete).await.unwrap();
        self.levels.delete(PEOPLE, &delete).await.unwrap();
        until("what was deleted is back", async || self.are_there().await).await;
        let wide = json!({ "spec": { "limited": { "nominalConcurrencyShares": 1000 } } });
        let (params, wide) = (PatchParams::default(), Patch::Merge(wide));
        self.levels.patch(BACKGROUND, &params, &wide).await.unwrap();
        until("what was changed is as before", async || {
            let level = self.levels.get(BACKGROUND).await.unwrap();
            let limited = level.spec.unwrap().limited.unwrap();
            limited.nominal_concurrency_shares == Some(40)
        })
        .await;
    }

    /// Ours, not upstream's.
    async fn are_gone(&self) -> bool {
        let all = ListParams::default();
        let levels = self.levels.list(&all).await.unwrap();
        let levels: Vec<_> = levels
            .items
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect();
        let schemas = self.schemas.list(&all).await.unwrap();
        let ours = |name: &String| name.starts_with("stoker-");
        !levels.iter().any(ours)
            && !schemas.items.iter().any(|schema| ours(&schema.name_any()))
            && levels.contains(&"workload-low".to_owned())
    }
}
