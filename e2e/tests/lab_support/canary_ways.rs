//! The ways in which a tenant has its API server dial something, and what came of each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::canary_counts::METADATA;
use crate::door::{Door, get, send};
use crate::far_server::ELSEWHERE;
use crate::walled::FAR;

/// What is dialled is dialled at once; that nobody answers takes longer.
const DIALLED: Duration = Duration::from_secs(5);
/// Objects are known to the API server, and Services to the node, a moment after they were written.
const KNOWN: Duration = Duration::from_secs(30);
const CORE: &str = "/api/v1/namespaces/default";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NOT_ASKED: &str = "nobody was asked";

/// Somewhere that no tenant may have its API server dial.
pub(crate) struct Canary {
    pub(crate) what: &'static str,
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
}

impl Canary {
    /// With its port, as in a URL.
    fn host(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// Whether it is in the pod of the control plane itself.
    pub(crate) fn is_of_the_pod(&self) -> bool {
        self.ip.to_canonical().is_loopback()
    }

    /// Whether the tenant's node dials it when it is asked to: that reaches no further than the node itself does.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_of_the_pod() && self.ip.to_string() != METADATA
    }
}

/// What came of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Came {
    /// The object is there.
    Made,
    /// The API server takes no such object.
    Invalid,
    /// It has dialled, and heard something; or was told that nobody listens there.
    Dialled,
    /// It dials no such address.
    ApiServerRefuses,
    /// The tunnel's agent dials no such address.
    AgentRefuses,
    /// No agent has a way there, or there is none.
    NoAgent,
    /// No endpoint of that Service is known.
    NoEndpoint,
    /// The API server does not know what it shall dial.
    NotFound,
    /// Nothing came back.
    Silence,
    /// The API server has not dialled, nor said why.
    NotAsked,
}

/// What the API server says of each, where it has not dialled.
const SAID: [(&str, Came); 13] = [
    ("this address is not dialled", Came::AgentRefuses),
    ("address not allowed", Came::ApiServerRefuses),
    ("may not be in the ", Came::Invalid),
    ("no endpoints available", Came::NoEndpoint),
    ("cannot find endpointslices", Came::NoEndpoint),
    ("have no addresses", Came::NoEndpoint),
    ("\" not found", Came::NotFound),
    ("is not present", Came::NotFound),
    ("code 503", Came::NoAgent),
    ("context deadline exceeded", Came::Silence),
    ("timed out waiting", Came::Silence),
    ("no answer in", Came::Silence),
    (NOT_ASKED, Came::NotAsked),
];

impl Came {
    fn of(said: &str) -> Self {
        let known = SAID.iter().find(|(part, _)| said.contains(part));
        known.map_or(Self::Dialled, |(_, came)| *came)
    }
}

/// What came of a way, and what may.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) way: &'static str,
    pub(crate) came: Came,
    #[expect(dead_code, reason = "printed with the rest")]
    said: String,
    expected: &'static [Came],
}

impl Answer {
    pub(crate) fn is_expected(&self) -> bool {
        self.expected.contains(&self.came)
    }
}

/// A way, for a canary that the node dials or for one that it does not.
struct Way {
    name: &'static str,
    ask: Ask,
    expected: &'static [Came],
}

/// How an API server is made to dial.
enum Ask {
    Get(String),
    Stream(String),
    /// A webhook of that name.
    Webhook(String),
    /// The aggregated API of that name: the API server looks at once whether it is there.
    Aggregated(String),
}

impl Ask {
    async fn say(&self, door: &Door) -> String {
        let answered = match self {
            Self::Get(path) => timeout(DIALLED, get(&door.client, path)).await,
            Self::Stream(path) => {
                let stream = timeout(DIALLED, door.upgraded(path, "SPDY/3.1")).await;
                stream.map(|stream| stream.map(|_| String::new()))
            }
            Self::Webhook(name) => timeout(DIALLED, asks_webhooks(door, name)).await,
            Self::Aggregated(name) => timeout(DIALLED, available(door, name)).await,
        };
        match answered {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer in {DIALLED:?}"),
        }
    }
}

/// Makes an object that this webhook, and no other, is asked about.
async fn asks_webhooks(door: &Door, name: &str) -> anyhow::Result<String> {
    let asking = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "asks": name } },
    });
    let path = format!("{CORE}/configmaps?dryRun=All");
    send(&door.client, Method::POST, &path, &asking).await?;
    Ok(NOT_ASKED.to_owned())
}

/// Why the aggregated API is not there.
async fn available(door: &Door, name: &str) -> anyhow::Result<String> {
    let found = get(&door.client, &format!("{API_SERVICES}/{name}")).await?;
    let found: Value = serde_json::from_str(&found)?;
    let said = found["status"]["conditions"][0]["message"].as_str();
    Ok(said.unwrap_or(NOT_ASKED).to_owned())
}

/// Goes a way until what comes of it is expected, or should have come by now.
async fn go(door: &Door, way: Way) -> Answer {
    let until = Instant::now() + KNOWN;
    loop {
        let said = way.ask.say(door).await;
        let answer = Answer {
            way: way.name,
            came: Came::of(&said),
            said,
            expected: way.expected,
        };
        if answer.is_expected() || Instant::now() > until {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Makes an object of a canary.
async fn make(
    door: &Door,
    method: Method,
    path: &str,
    object: &Value,
    expected: &'static [Came],
) -> Answer {
    let failed = send(&door.client, method, path, object).await.err();
    let said = failed.map_or_else(String::new, |error| format!("{path}: {error:#}"));
    let came = match Came::of(&said) {
        Came::Dialled if said.is_empty() => Came::Made,
        other => other,
    };
    Answer {
        way: "objects",
        came,
        said,
        expected,
    }
}

/// The ways that lead through the tunnel: forged nodes and pods, Services whose endpoints are given, other names for it, being sent
/// there by a webhook.
pub(crate) async fn by_the_tunnel(
    door: &Door,
    far: &str,
    number: usize,
    canary: &Canary,
) -> Vec<Answer> {
    let name = format!("canary-{number}");
    let mut answers = Vec::new();
    for (method, path, object) in objects(&name, canary) {
        let leads_there = path.ends_with("/endpoints") || path.ends_with("/endpointslices");
        let expected: &[Came] = if leads_there && !canary.is_open() {
            &[Came::Invalid]
        } else {
            &[Came::Made]
        };
        answers.push(make(door, method, &path, &object, expected).await);
    }
    for (kind, client) in webhooks(&name, far, canary) {
        let webhook = webhook(&format!("{name}-{kind}"), &client);
        answers.push(make(door, Method::POST, HOOKS, &webhook, &[Came::Made]).await);
    }
    let ways = ways(&name, canary).into_iter();
    answers.extend(join_all(ways.map(|way| go(door, way))).await);
    answers
}

fn ways(name: &str, canary: &Canary) -> Vec<Way> {
    // For one that is open, and for one that is not.
    let expect = |closed: &'static [Came]| {
        if canary.is_open() {
            &[Came::Dialled]
        } else {
            closed
        }
    };
    let refused = expect(&[Came::ApiServerRefuses, Came::AgentRefuses]);
    let unknown = expect(&[Came::NotFound, Came::NoEndpoint]);
    let port = canary.port;
    let way = |name, ask, expected| Way {
        name,
        ask,
        expected,
    };
    let get = |name, path, expected| way(name, Ask::Get(path), expected);
    let stream = |name, path| way(name, Ask::Stream(format!("{CORE}/pods/{path}")), refused);
    let hook = |kind, expected| way(kind, Ask::Webhook(format!("{name}-{kind}")), expected);
    vec![
        get("nodes", format!("/api/v1/nodes/{name}/proxy/"), refused),
        get(
            "nodes",
            format!("/api/v1/nodes/https:{name}:{port}/proxy/"),
            refused,
        ),
        get("logs", format!("{CORE}/pods/{name}/log"), refused),
        get("pods", format!("{CORE}/pods/{name}:{port}/proxy/"), refused),
        get(
            "pods",
            format!("{CORE}/pods/https:{name}:{port}/proxy/"),
            refused,
        ),
        get(
            "Services",
            format!("{CORE}/services/{name}:{port}/proxy/"),
            unknown,
        ),
        get(
            "Services",
            format!("{CORE}/services/https:{name}:{port}/proxy/"),
            unknown,
        ),
        // An API server passes nothing on to a Service without endpoints of its own.
        get(
            "Services of another name",
            format!("{CORE}/services/https:{name}-alias:{port}/proxy/"),
            &[Came::NotFound],
        ),
        stream(
            "exec",
            format!("{name}/exec?container=it&command=id&stdout=true"),
        ),
        stream("attach", format!("{name}/attach?container=it&stdout=true")),
        stream("port-forward", format!("{name}/portforward")),
        // Nobody is behind the Service: the node's kernel says so, or nothing.
        hook(
            "service",
            expect(&[Came::Silence, Came::NoAgent, Came::Dialled]),
        ),
        hook("alias", expect(&[Came::AgentRefuses])),
        hook("elsewhere", expect(&[Came::AgentRefuses])),
        way(
            "aggregated APIs",
            Ask::Aggregated(format!("v1.{name}.example.com")),
            unknown,
        ),
    ]
}

/// Where webhooks are, by their kind.
fn webhooks(name: &str, far: &str, canary: &Canary) -> [(&'static str, Value); 3] {
    let port = canary.port;
    let service =
        |name: String, port: u16| json!({ "namespace": "default", "name": name, "port": port });
    let mut elsewhere = service(FAR.to_owned(), 443);
    elsewhere["path"] = json!(format!("{ELSEWHERE}{}/{port}", canary.ip.to_canonical()));
    let trusted = json!({ "service": elsewhere, "caBundle": STANDARD.encode(far) });
    let alias = json!({ "service": service(format!("{name}-alias"), port) });
    let service = json!({ "service": service(name.to_owned(), port) });
    [
        ("service", service),
        ("alias", alias),
        ("elsewhere", trusted),
    ]
}

fn webhook(name: &str, client: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": name, "labels": { "canary": "yes" } },
        "webhooks": [{
            "name": format!("{name}.example.com"), "clientConfig": client,
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 2, "failurePolicy": "Fail",
            "objectSelector": { "matchLabels": { "asks": name } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }],
        }],
    })
}

/// The API server dials what a URL says by itself, and only from its own pod is anybody heard.
pub(crate) async fn by_url(door: &Door, number: usize, canary: &Canary) -> Answer {
    let name = format!("canary-{number}-url");
    let client = json!({ "url": format!("https://{}/", canary.host()) });
    let webhook = webhook(&name, &client);
    let made = make(door, Method::POST, HOOKS, &webhook, &[Came::Made]).await;
    if !made.is_expected() {
        return made;
    }
    let expected: &[Came] = if canary.is_of_the_pod() {
        &[Came::Dialled]
    } else {
        &[Came::Silence]
    };
    let way = Way {
        name: "URL",
        ask: Ask::Webhook(name),
        expected,
    };
    go(door, way).await
}

fn objects(name: &str, canary: &Canary) -> Vec<(Method, String, Value)> {
    let metadata = json!({ "name": name, "labels": { "canary": "yes" } });
    let (ip, port) = (canary.ip.to_canonical().to_string(), canary.port);
    let alias = json!({ "name": format!("{name}-alias"), "labels": { "canary": "yes" } });
    let ports = json!([{ "port": port, "protocol": "TCP" }]);
    let slice = json!({
        "name": name, "labels": { "canary": "yes", "kubernetes.io/service-name": name },
    });
    // An API server passes requests for Services on to pods alone.
    let pod = json!({ "kind": "Pod", "namespace": "default", "name": name });
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
            format!("{CORE}/pods"),
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
            format!("{CORE}/pods/{name}/status"),
            json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
        } }),
        ),
        (
            Method::POST,
            format!("{CORE}/services"),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": { "ports": ports },
            }),
        ),
        (
            Method::POST,
            format!("{CORE}/services"),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": alias,
                "spec": { "type": "ExternalName", "externalName": ip, "ports": ports },
            }),
        ),
        (
            Method::POST,
            format!("{CORE}/endpoints"),
            json!({
                "apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
                "subsets": [{ "addresses": [{ "ip": ip, "targetRef": pod }], "ports": ports }],
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
            API_SERVICES.to_owned(),
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
