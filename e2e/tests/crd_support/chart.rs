//! The Helm chart: what it renders is `install.yaml`, and helm installs, changes and removes it on a real API server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use stoker_lab::steps::Steps;
use stoker_lab::upstream::Upstream;
use stoker_lab::versions::{HELM, KubernetesVersion};

use crate::install::{GATEWAY, MANIFEST, SERVER_SIDE, Server};
use crate::{documents, file};

const CHART: &str = "manifests/chart";
const NAMESPACE: &str = "stoker-system";
/// Every value that adds something, but for what needs the Prometheus operator's CRDs.
const VALUES: &str = r"
image:
  digest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  pullPolicy: Always
  pullSecrets: [{name: registry}]
replicas: 3
resources: {requests: {cpu: 200m, memory: 1Gi}, limits: {memory: 2Gi}}
datastore: pool
baseDomain: clusters.example.com
managementCidrs: [10.0.0.0/8, 'fd00::/8']
maxConcurrentReconciles: 16
logJson: true
nodeSelector: {pool: system}
tolerations: [{key: system, operator: Exists}]
affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}
podAnnotations: {a: b}
priorityClassName: system-cluster-critical
metrics:
  service: {enabled: true, annotations: {a: b}}
  dashboard: {enabled: true, labels: {mine: 'yes'}}
";
/// What the Prometheus operator reads.
const PROMETHEUS: &str = "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.a=b,metrics.prometheusRule.enabled=true";

/// helm, with files of its own.
struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    async fn open() -> Self {
        let upstream = Upstream::open(Steps::new()).unwrap();
        Self {
            program: upstream.helm(HELM).await.unwrap().join("helm"),
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .args(["--namespace", NAMESPACE])
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG")
            .output()
            .unwrap()
    }

    /// It must not fail. Returns what it prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// On a server, with the chart.
    fn on(&self, server: &Server, arguments: &[&str]) -> String {
        let kubeconfig = server.kubeconfig.path().display().to_string();
        self.run(&[arguments, &["--kubeconfig", &kubeconfig]].concat())
    }

    /// What the chart renders, by kind and name.
    fn template(&self, values: &str) -> BTreeMap<String, Value> {
        let text = self.run(&["template", "stoker", &chart(), "--set", values]);
        let documents = text.split("---\n").filter(|text| text.contains("kind:"));
        by_name(documents.map(|text| serde_saphyr::from_str(text).unwrap()))
    }

    fn values(&self) -> String {
        let path = self.home.path().join("values.yaml");
        std::fs::write(&path, VALUES).unwrap();
        path.display().to_string()
    }
}

fn chart() -> String {
    file(CHART).display().to_string()
}

fn by_name(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap();
        format!("{} {name}", object["kind"].as_str().unwrap())
    };
    objects
        .into_iter()
        .map(|object| (name(&object), object))
        .collect()
}

/// Where two objects differ first; `None` when they are equal.
fn difference(left: &Value, right: &Value, path: &str) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) if left.keys().eq(right.keys()) => left
            .iter()
            .find_map(|(key, value)| difference(value, &right[key], &format!("{path}.{key}"))),
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(at, (left, right))| difference(left, right, &format!("{path}[{at}]"))),
        _ => (left != right).then(|| format!("{path}: {left} is not {right}")),
    }
}

#[tokio::test]
async fn the_chart_renders_install_yaml() {
    let helm = Helm::open().await;
    let mut wanted = by_name(documents(MANIFEST));
    let all = helm.template("namespace.create=true,crds.keep=false");
    assert_eq!(
        all.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>()
    );
    for (name, object) in &all {
        assert_eq!(difference(object, &wanted[name], name), None);
    }
    // As people install it: helm makes the namespace, and the CRDs stay.
    wanted.remove(&format!("Namespace {NAMESPACE}")).unwrap();
    let mut default = helm.template("");
    for (name, object) in &mut default {
        let annotations = object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations");
        let keep = annotations.is_some_and(|found| found["helm.sh/resource-policy"] == "keep");
        assert_eq!(keep, name.starts_with("CustomResourceDefinition"), "{name}");
    }
    assert!(default.keys().eq(wanted.keys()));
    for (name, object) in &default {
        assert_eq!(difference(object, &wanted[name], name), None);
    }
}

#[tokio::test]
async fn the_chart_renders_gateway_yaml_where_it_is_asked_for() {
    let helm = Helm::open().await;
    let with = helm.template("gateway.enabled=true,baseDomain=clusters.example.com");
    let without = helm.template("baseDomain=clusters.example.com");
    let gateway = with.iter().filter(|(name, _)| !without.contains_key(*name));
    let gateway: BTreeMap<_, _> = gateway
        .map(|(name, object)| (name.clone(), object.clone()))
        .collect();
    let wanted = by_name(documents(GATEWAY));
    assert!(gateway.keys().eq(wanted.keys()), "{:?}", gateway.keys());
    for (name, object) in &gateway {
        assert_eq!(difference(object, &wanted[name], name), None);
    }
    let set = "gateway.enabled=true,baseDomain=a.b,gateway.proxyProtocolFrom={10.0.0.0/8},gateway.arguments={--tenant-connections=5},gateway.service.annotations.a=b";
    let set = helm.template(set);
    let arguments =
        &set["Deployment stoker-gateway"]["spec"]["template"]["spec"]["containers"][0]["args"];
    let first = [
        "--base-domain=a.b",
        "--proxy-protocol-from=10.0.0.0/8",
        "--tenant-connections=5",
    ];
    assert_eq!(arguments.as_array().unwrap()[..3], first);
    assert_eq!(
        set["Service stoker-gateway"]["metadata"]["annotations"]["a"],
        "b"
    );
    let refused = helm.output(&[
        "template",
        "stoker",
        &chart(),
        "--set",
        "gateway.enabled=true",
    ]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("the gateway needs baseDomain"), "{said}");
}

#[tokio::test]
async fn helm_finds_nothing_wrong_with_the_chart_and_refuses_wrong_values() {
    let helm = Helm::open().await;
    let chart = chart();
    helm.run(&["lint", "--strict", &chart]);
    helm.run(&["lint", "--strict", &chart, "--values", &helm.values()]);
    helm.run(&["lint", "--strict", &chart, "--set", PROMETHEUS]);
    for (wrong, says) in [
        ("replica=3", "additional properties 'replica' not allowed"),
        ("maxConcurrentReconciles=0", "/maxConcurrentReconciles"),
        ("managementCidrs={10.0.0.1}", "/managementCidrs/0"),
        ("baseDomain=*.example.com", "/baseDomain"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("metrics.serviceMonitor.interval=often", "/interval"),
    ] {
        let output = helm.output(&["template", "stoker", &chart, "--set", wrong]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(says),
            "{wrong}: {said}"
        );
    }
}

#[tokio::test]
async fn what_prometheus_and_grafana_read_is_what_the_plain_files_say() {
    let helm = Helm::open().await;
    let gateway = "gateway.enabled=true,baseDomain=a.b";
    let values = format!("{PROMETHEUS},metrics.dashboard.enabled=true,{gateway}");
    let rendered = helm.template(&values);
    let rules = documents("manifests/monitoring/alerts.yaml").remove(0);
    assert_eq!(rendered["PrometheusRule stoker"]["spec"], rules);
    let dashboard = std::fs::read_to_string(file("manifests/monitoring/dashboard.json")).unwrap();
    let shown = &rendered["ConfigMap stoker-dashboard"]["data"]["stoker.json"];
    assert_eq!(
        serde_json::from_str::<Value>(shown.as_str().unwrap()).unwrap(),
        serde_json::from_str::<Value>(&dashboard).unwrap()
    );
    for name in ["stoker-operator", "stoker-gateway"] {
        let monitor = &rendered[&format!("ServiceMonitor {name}")];
        let service = &rendered[&format!("Service {name}-metrics")];
        assert_eq!(
            monitor["spec"]["endpoints"][0]["port"],
            service["spec"]["ports"][0]["name"]
        );
        let pod = &rendered[&format!("Deployment {name}")]["spec"]["template"];
        assert!(selects(
            &service["spec"]["selector"],
            &pod["metadata"]["labels"]
        ));
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        assert!(selects(selector, &service["metadata"]["labels"]));
        assert_eq!(monitor["metadata"]["labels"]["a"], "b");
    }
    let monitor = &rendered["ServiceMonitor stoker-gateway"]["spec"]["selector"]["matchLabels"];
    let of_clients = &rendered["Service stoker-gateway"]["metadata"]["labels"];
    assert!(!selects(monitor, of_clients), "gateways are scraped twice");
    let without = helm.template(PROMETHEUS);
    assert!(!without.contains_key("ServiceMonitor stoker-gateway"));
}

/// Whether the labels have all that is asked for.
fn selects(asked: &Value, labels: &Value) -> bool {
    let mut asked = asked.as_object().unwrap().iter();
    asked.all(|(label, value)| labels[label] == *value)
}

pub(crate) async fn helm_installs_upgrades_and_uninstalls_the_chart(version: KubernetesVersion) {
    let (helm, server, chart) = (Helm::open().await, Server::start(version).await, chart());
    let notes = helm.on(
        &server,
        &["install", "stoker", &chart, "--create-namespace"],
    );
    assert!(notes.contains("rollout status"), "{notes}");
    let deployment = [
        "--namespace",
        NAMESPACE,
        "get",
        "deployment",
        "stoker-operator",
    ];
    let generation = || {
        let path = "--output=jsonpath={.metadata.generation}";
        server.kubectl(&[&deployment[..], &[path]].concat())
    };
    helm.on(&server, &["upgrade", "stoker", &chart]);
    assert_eq!(generation(), "1", "an upgrade to the same changed it");
    let values = helm.values();
    helm.on(&server, &["upgrade", "stoker", &chart, "--values", &values]);
    let object = server.kubectl(&[&deployment[..], &["--output=json"]].concat());
    let object: Value = serde_json::from_str(&object).unwrap();
    let pod = &object["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let arguments = container["args"].to_string();
    assert!(
        arguments.ends_with(r#""--datastore=pool","--base-domain=clusters.example.com","--management-cidrs=10.0.0.0/8,fd00::/8","--max-concurrent-reconciles=16","--log-json"]"#),
        "{arguments}"
    );
    assert_eq!(object["spec"]["replicas"], 3);
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    assert_eq!(pod["nodeSelector"]["pool"], "system");
    assert_eq!(pod["tolerations"][0]["key"], "system");
    assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
    assert!(
        container["image"]
            .as_str()
            .unwrap()
            .contains("@sha256:0123")
    );
    server.kubectl(&[
        "--namespace",
        NAMESPACE,
        "get",
        "service/stoker-operator-metrics",
        "configmap/stoker-dashboard",
    ]);

    helm.on(&server, &["uninstall", "stoker"]);
    let crds = server.kubectl(&["get", "crd", "--output=name"]);
    assert_eq!(crds.lines().count(), 4, "{crds}");
    let left = server.kubectl(&[
        "get",
        "clusterroles",
        "--output=name",
        "--selector=app.kubernetes.io/part-of=stoker",
    ]);
    assert_eq!(left, "");
}

pub(crate) async fn helm_takes_over_what_install_yaml_made(version: KubernetesVersion) {
    let (helm, server, chart) = (Helm::open().await, Server::start(version).await, chart());
    server.install(&SERVER_SIDE);
    let what = [
        "get",
        "deployments,poddisruptionbudgets,crds",
        "--all-namespaces",
        r"--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.spec}{'\n'}{end}",
    ];
    let before = server.kubectl(&what);
    helm.on(
        &server,
        &[
            "install",
            "stoker",
            &chart,
            "--take-ownership",
            "--force-conflicts",
        ],
    );
    assert_eq!(before, server.kubectl(&what));
}
