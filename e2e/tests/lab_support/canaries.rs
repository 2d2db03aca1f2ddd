//! Whatever a tenant tells its API server to dial, nothing of management's hears of it (T5, T6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use http::Method;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use stoker_lab::product::NAMESPACE;
use tokio::time::{Instant, timeout};

use crate::canary_counts::{Counts, METADATA};
use crate::door::{Door, get, send};
use crate::far_server::ELSEWHERE;
use crate::walled::{FAR, Walled, address};
use crate::world::World;

const OTHER: &str = "other";
/// What is dialled is dialled at once; that nobody answers takes longer.
const DIALLED: Duration = Duration::from_secs(5);
/// Webhooks are known a moment after they were written.
const KNOWN: Duration = Duration::from_secs(20);

/// Somewhere that no tenant may have its API server dial.
struct Canary {
    what: &'static str,
    ip: IpAddr,
    port: u16,
}

impl Canary {
    /// With its port, as in a URL.
    fn host(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

pub(crate) async fn whatever_a_tenant_has_its_api_server_dial_nothing_of_managements_hears_of_it(
    world: &World,
) -> Result<()> {
    let walled = Walled::of(world).await?;
    world.tenant(OTHER).await?;
    let pod = walled.control_plane().await?.remove(0);
    let door = walled.door(&pod).await?;
    // Of a run that was interrupted.
    remove(&door).await?;
    let canaries = canaries(world).await?;
    let counts = Counts::begin(&walled, &pod).await?;

    let ways = canaries.iter().enumerate();
    let answers =
        join_all(ways.map(|(number, canary)| by_the_tunnel(&door, &walled.ca, number, canary)))
            .await;
    show(&canaries, answers);
    let counted = counts.now().await?;
    println!("nodes, pods, Services, aggregated APIs, webhooks of Services: {counted:?}");
    ensure!(
        counted["to its own loopback"] == 0,
        "the pod's own were dialled"
    );
    ensure!(
        counted["sent by the control plane"] == 0,
        "the control plane has dialled"
    );
    ensure!(counted["arrived"] == 0, "management was dialled");
    ensure!(
        counted["to the node's metadata service"] == 0,
        "metadata was dialled"
    );
    // Else nobody was asked to dial anything.
    ensure!(
        counted["sent by the tenant's node"] > 0,
        "nothing was dialled at all"
    );

    let ways = canaries.iter().enumerate();
    let answers = join_all(ways.map(|(number, canary)| by_url(&door, number, canary))).await;
    show(&canaries, answers);
    let counted = counts.now().await?;
    println!("webhooks by URL: {counted:?}");
    ensure!(counted["arrived"] == 0, "management was dialled");
    // The API server dials these itself: what is sent, and counted, is what the walls keep out.
    ensure!(
        counted["sent by the control plane"] > 0,
        "nothing was dialled at all"
    );
    counts.end().await?;
    remove(&door).await
}

async fn remove(door: &Door) -> Result<()> {
    for collection in [
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "/apis/apiregistration.k8s.io/v1/apiservices",
        "/api/v1/namespaces/default/pods",
        "/api/v1/nodes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        "/api/v1/namespaces/default/endpoints",
        "/api/v1/namespaces/default/services",
    ] {
        let path = format!("{collection}?labelSelector=canary%3Dyes&gracePeriodSeconds=0");
        send(&door.client, Method::DELETE, &path, &json!({}))
            .await
            .context("removing the canaries")?;
    }
    Ok(())
}

fn show(canaries: &[Canary], answers: Vec<Vec<String>>) {
    for (canary, answers) in canaries.iter().zip(answers) {
        println!("{} ({}:{}):", canary.what, canary.ip, canary.port);
        for answer in answers {
            let end = answer
                .char_indices()
                .nth(200)
                .map_or(answer.len(), |at| at.0);
            println!("    {}", answer[..end].replace('\n', " "));
        }
    }
}

async fn canaries(world: &World) -> Result<Vec<Canary>> {
    let plan = world.lab.addresses();
    let client = &world.management;
    let first = async |namespace: &str| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let mut pods = pods.list(&ListParams::default()).await?.items;
        pods.retain(|pod| address(pod).is_ok());
        address(pods.first().context("no pod")?)
    };
    let services: Api<Service> = Api::namespaced(client.clone(), OTHER);
    let service = services.get(OTHER).await?.spec;
    let service = service.and_then(|spec| spec.cluster_ip);
    let service = service.context("the other tenant has no ClusterIP")?;
    let canary = |what, ip, port| Canary { what, ip, port };
    let management: IpAddr = plan.management().into();
    Ok(vec![
        canary("management API server", management, 6443),
        canary("kubelet of the management node", management, 10250),
        canary("management etcd", management, 2379),
        canary("the pool's host", plan.pool().into(), 10250),
        canary("the operator's metrics", first(NAMESPACE).await?, 8080),
        canary("another tenant's API server", first(OTHER).await?, 6443),
        canary("another tenant's Service", service.parse()?, 6443),
        canary("the cloud's metadata", METADATA.parse()?, 80),
        canary("the pod's scheduler", "127.0.0.1".parse()?, 10259),
        canary("the pod's health port", "::ffff:127.0.0.1".parse()?, 10271),
    ])
}

/// Makes an object of the canary's; says why when it is refused.
async fn made(door: &Door, method: Method, path: &str, object: &Value) -> Option<String> {
    let failed = send(&door.client, method, path, object).await.err()?;
    Some(format!("refused: {failed:#}"))
}

/// The ways that lead through the tunnel: forged nodes and pods, Services whose endpoints are given, other names for it, being sent
/// there by a webhook.
async fn by_the_tunnel(door: &Door, far: &str, number: usize, canary: &Canary) -> Vec<String> {
    let name = format!("canary-{number}");
    let mut said = Vec::new();
    for (method, path, object) in objects(&name, canary) {
        said.extend(made(door, method, &path, &object).await);
    }
    let port = canary.port;
    let core = "/api/v1/namespaces/default";
    let asked = [
        format!("/api/v1/nodes/{name}/proxy/"),
        format!("/api/v1/nodes/https:{name}:{port}/proxy/"),
        format!("{core}/pods/{name}/log"),
        format!("{core}/pods/{name}:{port}/proxy/"),
        format!("{core}/pods/https:{name}:{port}/proxy/"),
        format!("{core}/services/{name}:{port}/proxy/"),
        format!("{core}/services/https:{name}:{port}/proxy/"),
        format!("{core}/services/https:{name}-alias:{port}/proxy/"),
        format!("/apis/{name}.example.com/v1"),
    ];
    let streams = [
        format!("{core}/pods/{name}/exec?container=it&command=id&stdout=true"),
        format!("{core}/pods/{name}/attach?container=it&stdout=true"),
        format!("{core}/pods/{name}/portforward"),
    ];
    let asked = asked.iter().map(async |path| {
        let answer = timeout(DIALLED, get(&door.client, path)).await;
        described(
            path,
            answer.map(|answer| answer.map(|answer| format!("ANSWERED {answer}"))),
        )
    });
    let streams = streams.iter().map(async |path| {
        let answer = timeout(DIALLED, door.upgraded(path, "SPDY/3.1")).await;
        described(
            path,
            answer.map(|answer| answer.map(|_| "ANSWERED".to_owned())),
        )
    });
    let service =
        |name: String, port: u16| json!({ "namespace": "default", "name": name, "port": port });
    let mut elsewhere = service(FAR.to_owned(), 443);
    elsewhere["path"] = json!(format!("{ELSEWHERE}{}/{port}", canary.ip.to_canonical()));
    let trusted = json!({ "service": elsewhere, "caBundle": STANDARD.encode(far) });
    let hooks = [
        ("service", json!({ "service": service(name.clone(), port) })),
        (
            "alias",
            json!({ "service": service(format!("{name}-alias"), port) }),
        ),
        ("elsewhere", trusted),
    ]
    .map(|(kind, client)| asked_as_a_webhook(door, format!("{name}-{kind}"), client));
    let (asked, streams, hooks) = tokio::join!(join_all(asked), join_all(streams), join_all(hooks));
    said.extend(asked.into_iter().chain(streams).chain(hooks));
    said
}

fn described<E>(what: &str, answer: Result<Result<String>, E>) -> String {
    match answer {
        Ok(Ok(answer)) => format!("{what}: {answer}"),
        Ok(Err(error)) => format!("{what}: {error:#}"),
        Err(_) => format!("{what}: no answer in {DIALLED:?}"),
    }
}

fn objects(name: &str, canary: &Canary) -> Vec<(Method, String, Value)> {
    let core = "/api/v1/namespaces/default";
    let metadata = json!({ "name": name, "labels": { "canary": "yes" } });
    let (ip, port) = (canary.ip.to_canonical().to_string(), canary.port);
    let alias = json!({ "name": format!("{name}-alias"), "labels": { "canary": "yes" } });
    let ports = json!([{ "port": port, "protocol": "TCP" }]);
    let slice = json!({
        "name": name, "labels": { "canary": "yes", "kubernetes.io/service-name": name },
    });
    vec![
        (
            Method::POST,
            "/api/v1/nodes".to_owned(),
            json!({
                "apiVersion": "v1", "kind": "Node", "metadata": metadata,
                "spec": { "unschedulable": true },
            }),
        ),
        (
            Method::PATCH,
            format!("/api/v1/nodes/{name}/status"),
            json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": canary.ip }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        } }),
        ),
        (
            Method::POST,
            format!("{core}/pods"),
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                "spec": {
                    "nodeName": name, "automountServiceAccountToken": false,
                    "containers": [{ "name": "it", "image": "none" }],
                },
            }),
        ),
        (
            Method::PATCH,
            format!("{core}/pods/{name}/status"),
            json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        } }),
        ),
        (
            Method::POST,
            format!("{core}/services"),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": { "ports": ports },
            }),
        ),
        (
            Method::POST,
            format!("{core}/services"),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": alias,
                "spec": { "type": "ExternalName", "externalName": ip, "ports": ports },
            }),
        ),
        (
            Method::POST,
            format!("{core}/endpoints"),
            json!({
                "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
                "subsets": [{ "addresses": [{ "ip": ip }], "ports": ports }],
            }),
        ),
        (
            Method::POST,
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned(),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice,
                "addressType": "IPv4", "endpoints": [{ "addresses": [ip] }], "ports": ports,
            }),
        ),
        (
            Method::POST,
            "/apis/apiregistration.k8s.io/v1/apiservices".to_owned(),
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": { "name": format!("v1.{name}.example.com"), "labels": { "canary": "yes" } },
                "spec": {
                    "group": format!("{name}.example.com"), "version": "v1", "groupPriorityMinimum": 100,
                    "versionPriority": 100, "insecureSkipTLSVerify": true,
                    "service": { "namespace": "default", "name": name, "port": port },
                },
            }),
        ),
    ]
}

async fn by_url(door: &Door, number: usize, canary: &Canary) -> Vec<String> {
    let client = json!({ "url": format!("https://{}/", canary.host()) });
    vec![asked_as_a_webhook(door, format!("canary-{number}-url"), client).await]
}

/// Has the API server ask a webhook about an object, and says what came of it.
async fn asked_as_a_webhook(door: &Door, name: String, client: Value) -> String {
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": name, "labels": { "canary": "yes" } },
        "webhooks": [{
            "name": format!("{name}.example.com"), "clientConfig": client,
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 2, "failurePolicy": "Fail",
            "objectSelector": { "matchLabels": { "asks": name } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }],
        }],
    });
    let collection = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    if let Some(refused) = made(door, Method::POST, collection, &webhook).await {
        return refused;
    }
    let asking = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "asks": name } },
    });
    let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let until = Instant::now() + KNOWN;
    while Instant::now() < until {
        if let Some(answer) = made(door, Method::POST, path, &asking).await {
            return format!("{name}: {answer}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    format!("{name}: the webhook was not asked in {KNOWN:?}")
}
