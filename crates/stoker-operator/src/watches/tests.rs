use std::time::Duration;

use clap::Parser as _;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::{Body, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stoker_api::labels::TENANT;
use stoker_kube::Desired;
use stoker_pki::EscrowKey;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower_test::mock::{self, Handle, SendResponse};

use kube::ResourceExt as _;

use super::*;
use crate::args::Args;
use crate::context::TENANT_LAG;
use crate::run::{Parts, parts};
use crate::tenant::state::{TenantState, lock};
use crate::tenant::status::urgency::PROGRESS;

const PATIENCE: Duration = Duration::from_mins(10);
const SERVICES: &str = "/api/v1/services";
const PODS: &str = "/api/v1/pods";

/// An API server that answers one request at a time as the test says.
pub(crate) struct Server(Handle<Request<Body>, Response<Body>>);

/// A request that waits for its answer.
pub(super) struct Call {
    pub(super) uri: String,
    answer: SendResponse<Response<Body>>,
}

impl Server {
    /// The next request, which must be this one.
    pub(super) async fn expect(&mut self, method: &str, path: &str) -> Call {
        let (request, answer) = timeout(PATIENCE, self.0.next_request())
            .await
            .unwrap_or_else(|_| panic!("no {method} {path}"))
            .unwrap();
        let (head, _) = request.into_parts();
        assert_eq!((head.method.as_str(), head.uri.path()), (method, path));
        Call {
            uri: head.uri.to_string(),
            answer,
        }
    }

    /// Method and path of the next request, which has no answer.
    pub(crate) async fn next(&mut self) -> (String, String) {
        let next = timeout(PATIENCE, self.0.next_request()).await;
        let (request, answer) = next.unwrap().unwrap();
        drop(answer);
        let (head, _) = request.into_parts();
        (head.method.to_string(), head.uri.path().to_owned())
    }

    /// A list is asked for, and has these objects.
    pub(crate) async fn list(&mut self, path: &str, kind: &str, items: &[Value]) {
        let call = self.expect("GET", path).await;
        assert!(!call.uri.contains("watch=true"), "{}", call.uri);
        call.answer(&json!({
            "apiVersion": "v1", "kind": format!("{kind}List"),
            "metadata": { "resourceVersion": "5" }, "items": items,
        }));
    }

    /// A watch is asked for, tells these events and ends.
    pub(super) async fn watch(&mut self, path: &str, events: &[(&str, Value)]) {
        let call = self.expect("GET", path).await;
        assert!(call.uri.contains("watch=true"), "{}", call.uri);
        let line = |(kind, object): &(&str, Value)| {
            format!("{}\n", json!({ "type": kind, "object": object }))
        };
        let lines: String = events.iter().map(line).collect();
        call.answer
            .send_response(Response::new(Body::from(lines.into_bytes())));
    }

    /// A watch is asked for whose version is forgotten: a new list follows.
    async fn forget(&mut self, path: &str) {
        let gone = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": "Expired", "code": 410, "message": "too old",
        });
        self.watch(path, &[("ERROR", gone)]).await;
    }
}

impl Call {
    fn answer(self, body: &Value) {
        let body = Body::from(serde_json::to_vec(body).unwrap());
        self.answer.send_response(Response::new(body));
    }
}

/// The parts of an operator whose API server is the other.
pub(crate) fn operator(flags: &[&str]) -> (Parts, Server) {
    let (service, handle) = mock::pair();
    let parts = parts_with(flags, Client::new(service, "default"));
    (parts, Server(handle))
}

/// The parts of an operator with this client.
pub(crate) fn operator_with(client: Client) -> Parts {
    parts_with(&[], client)
}

fn parts_with(flags: &[&str], client: Client) -> Parts {
    let args = [&["stoker-operator"], flags].concat();
    parts(
        Args::parse_from(args),
        client,
        Arc::new(stoker_kube::tenant_client),
        Arc::default(),
        EscrowKey::generate().unwrap(),
    )
}

/// Tenant `a/one` exists.
pub(crate) fn tenant_exists(
    cache: &mut Writer<TenantControlPlane>,
) -> ObjectRef<TenantControlPlane> {
    let tenant: TenantControlPlane = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "one", "namespace": "a", "uid": "u" },
        "spec": {
            "controlPlane": { "service": { "serviceType": "ClusterIP" } },
            "kubernetes": { "version": "v1.36.3", "kubelet": {} },
        },
    }))
    .unwrap();
    let reference = ObjectRef::from_obj(&tenant);
    for event in [Event::Init, Event::InitApply(tenant), Event::InitDone] {
        cache.apply_watcher_event(&event);
    }
    reference
}

fn object(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "a", "uid": "1", "resourceVersion": "3",
            "labels": { TENANT: "one", MANAGED_BY: MANAGED_BY_VALUE },
        },
    })
}

fn desired<K: DeserializeOwned + Resource<DynamicType = ()> + Serialize>(
    object: &Value,
) -> Desired {
    Desired::of(&serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
}

/// Applies an object, which is stored as it is.
async fn write<K: DeserializeOwned + Resource<DynamicType = ()> + Serialize>(
    ctx: &Context,
    state: &TenantState,
    server: &mut Server,
    path: &str,
    object: &Value,
) -> Desired {
    let desired = desired::<K>(object);
    let applying = ctx
        .writer
        .apply_all(vec![desired.clone()], &state.ledger, 1);
    let storing = async { server.expect("PATCH", path).await.answer(object) };
    tokio::join!(applying, storing).0.unwrap();
    desired
}

async fn next<T>(queue: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(PATIENCE, queue.recv()).await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_service_that_vanished_while_its_watch_was_broken_is_to_be_applied_again() {
    let (parts, mut server) = operator(&[]);
    let Parts {
        ctx,
        mut watches,
        mut woken,
        ..
    } = parts;
    let tenant = tenant_exists(&mut watches.tenants);
    let state = ctx.tenants.state(&tenant);
    let service = object("Service", "one");
    let path = "/api/v1/namespaces/a/services/one";
    let desired = write::<Service>(&ctx, &state, &mut server, path, &service).await;

    let watching = owned::watch_cached(watches.services, ctx.clone());
    let _watching = JoinSet::from_iter([watching]);
    server.list(SERVICES, "Service", &[service]).await;
    ctx.stores.services.wait_until_ready().await.unwrap();
    tokio::time::sleep(TENANT_LAG * 2).await;
    assert!(woken.try_recv().is_err(), "what we have made is no news");
    assert!(state.ledger.is_current(&desired));
    let disturbances = state.disturbances();
    server.forget(SERVICES).await;
    server.list(SERVICES, "Service", &[]).await;
    assert_eq!(next(&mut woken).await, tenant);
    assert!(!state.ledger.is_current(&desired));
    assert!(state.disturbances() > disturbances);
    assert!(ctx.stores.services.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_a_deployment_we_wrote_what_is_ready_is_news_and_what_is_counted_can_wait() {
    let (parts, mut server) = operator(&[]);
    let Parts {
        ctx,
        mut watches,
        mut woken,
        ..
    } = parts;
    let tenant = tenant_exists(&mut watches.tenants);
    let state = ctx.tenants.state(&tenant);
    let stored = |version: &str, status: Value| {
        let mut deployment = object("Deployment", "one");
        deployment["apiVersion"] = json!("apps/v1");
        deployment["metadata"]["generation"] = json!(1);
        deployment["metadata"]["resourceVersion"] = json!(version);
        deployment["spec"] = json!({ "replicas": 1, "selector": {}, "template": {} });
        deployment["status"] = status;
        deployment
    };
    let written = stored("3", json!({}));
    let one = "/apis/apps/v1/namespaces/a/deployments/one";
    write::<Deployment>(&ctx, &state, &mut server, one, &written).await;

    let _watching = JoinSet::from_iter([owned::watch_cached(watches.deployments, ctx.clone())]);
    let began = tokio::time::Instant::now();
    let path = "/apis/apps/v1/deployments";
    server.list(path, "Deployment", &[written]).await;
    let counted = json!({ "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1 });
    let mut ready = counted.clone();
    ready["readyReplicas"] = json!(1);
    let counted = ("MODIFIED", stored("4", counted));
    server.watch(path, &[counted]).await;
    assert_eq!(next(&mut woken).await, tenant);
    assert!(began.elapsed() >= PROGRESS, "what we wrote, and a number");
    let began = tokio::time::Instant::now();
    server
        .watch(path, &[("MODIFIED", stored("5", ready.clone()))])
        .await;
    assert_eq!(next(&mut woken).await, tenant);
    assert!(began.elapsed() < PROGRESS, "it is ready");

    // We write another, and what follows is seen only once it is over.
    let mut another = stored("6", ready);
    another["metadata"]["generation"] = json!(2);
    another["spec"]["paused"] = json!(true);
    let desired = vec![desired::<Deployment>(&another)];
    another["status"]["observedGeneration"] = json!(2);
    server.forget(path).await;
    let applying = ctx.writer.apply_all(desired, &state.ledger, 1);
    let storing = async {
        let first = server.0.next_request().await.unwrap();
        let second = server.0.next_request().await.unwrap();
        for (request, answer) in [first, second] {
            let body = if request.method() == "PATCH" {
                assert_eq!(request.uri().path(), one);
                another.clone()
            } else {
                json!({ "metadata": { "resourceVersion": "8" }, "items": [another] })
            };
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            answer.send_response(Response::new(body));
        }
    };
    tokio::join!(applying, storing).0.unwrap();
    assert_eq!(
        next(&mut woken).await,
        tenant,
        "another generation is complete"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_vanished_while_its_watch_was_broken_serves_no_more() {
    let (parts, mut server) = operator(&[]);
    let Parts {
        ctx,
        mut watches,
        mut woken,
        ..
    } = parts;
    let tenant = tenant_exists(&mut watches.tenants);
    let pod = |name, ip: &str| {
        let mut pod = object("Pod", name);
        pod["status"] = json!({
            "podIP": ip, "conditions": [{ "type": "Ready", "status": "True" }],
        });
        pod
    };
    let listed = Listed::default();
    let _watching = JoinSet::from_iter([pods::watch_pods(ctx.clone(), listed.clone())]);
    let both = [pod("old", "192.0.2.1"), pod("new", "192.0.2.2")];
    server.list(PODS, "Pod", &both).await;
    // News of both is one reason.
    assert_eq!(next(&mut woken).await, tenant);
    let state = ctx.tenants.state(&tenant);
    let is_ready = |ip: &str| lock(&state.pods).is_ready(ip.parse().unwrap());
    assert!(is_ready("192.0.2.1") && is_ready("192.0.2.2"));
    server.forget(PODS).await;
    server.list(PODS, "Pod", &[pod("new", "192.0.2.2")]).await;
    assert_eq!(next(&mut woken).await, tenant);
    assert!(!is_ready("192.0.2.1") && is_ready("192.0.2.2"));
    // And the last one, whose tenant is gone as well.
    watches.tenants.apply_watcher_event(&Event::Init);
    watches.tenants.apply_watcher_event(&Event::InitDone);
    server.forget(PODS).await;
    server.list(PODS, "Pod", &[]).await;
    server.forget(PODS).await;
    assert!(ctx.tenants.get(&tenant).is_none());
}

#[tokio::test]
async fn what_a_new_list_does_not_name_is_deleted_before_the_list_is_done() {
    let map = |name: &str| -> ConfigMap {
        serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "a" } })).unwrap()
    };
    let (store, cache) = kube::runtime::reflector::store();
    let events = [
        Event::Init,
        Event::InitApply(map("a")),
        Event::InitApply(map("b")),
        Event::InitDone,
        Event::Init,
        Event::InitApply(map("b")),
        Event::InitDone,
    ];
    let told = cached(cache, stream::iter(events.map(Ok))).map(|event| match event.unwrap() {
        Event::Init => "init".to_owned(),
        Event::InitApply(map) => format!("listed {}", map.name_any()),
        Event::InitDone => "complete".to_owned(),
        Event::Apply(map) => format!("stored {}", map.name_any()),
        Event::Delete(map) => format!("deleted {}", map.name_any()),
    });
    let told: Vec<_> = told.collect().await;
    let expected = [
        "init",
        "listed a",
        "listed b",
        "complete",
        "init",
        "listed b",
        "deleted a",
        "complete",
    ];
    assert_eq!(told, expected);
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_we_write_wakes_no_tenant_but_a_finalizer_that_is_taken_away_does() {
    const TENANTS: &str = "/apis/stoker.dev/v1alpha1/tenantcontrolplanes";
    let (parts, mut server) = operator(&[]);
    let Parts {
        ctx,
        watches,
        mut woken,
        mut woken_data_stores,
        ..
    } = parts;
    let version = |version: &str, finalizers: &[&str], status: &Value| {
        json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": {
                "name": "one", "namespace": "a", "uid": "u", "generation": 1,
                "resourceVersion": version, "finalizers": finalizers,
            },
            "spec": {
                "controlPlane": { "service": { "serviceType": "ClusterIP" } },
                "kubernetes": { "version": "v1.36.3", "kubelet": {} },
            },
            "status": status,
        })
    };
    let _watching = JoinSet::from_iter([tenants::watch_tenants(watches.tenants, ctx.clone())]);
    let unborn = version("3", &[], &json!({}));
    server.list(TENANTS, "TenantControlPlane", &[unborn]).await;
    let tenant = ObjectRef::new("one").within("a");
    // The object, and the end of the list.
    for _ in 0..2 {
        assert_eq!(next(&mut woken).await.name, tenant.name);
    }
    let placed = json!({ "storage": {
        "driver": "etcd", "dataStoreName": "pool", "setup": { "schema": "s", "user": "s" },
    }});
    let held = [stoker_api::labels::FINALIZER];
    let ours = [
        ("MODIFIED", version("6", &held, &json!({}))),
        ("MODIFIED", version("7", &held, &placed)),
    ];
    server.watch(TENANTS, &ours).await;
    assert_eq!(next(&mut woken_data_stores).await.name, "pool");
    assert!(woken.try_recv().is_err(), "what we write is no news");
    let bared = [("MODIFIED", version("8", &[], &placed))];
    server.watch(TENANTS, &bared).await;
    assert_eq!(next(&mut woken).await, tenant);
    let gone = [("DELETED", version("9", &[], &placed))];
    server.watch(TENANTS, &gone).await;
    assert_eq!(next(&mut woken_data_stores).await.name, "pool");
}
