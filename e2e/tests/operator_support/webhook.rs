//! The webhook of `manifests/install.yaml`, dialed where the operator's process listens.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ResourceQuota, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stoker_lab::ports::free_ports;
use stoker_lab::steps::Steps;
use stoker_lab::upstream::Upstream;
use stoker_lab::versions::default_kubernetes;
use stoker_pki::{Authority, LeafRequest, LeafUsage};
use time::{Duration, OffsetDateTime};

use crate::bare::{Bare, Operator, tenants::smallest, until};

pub(crate) const SECRET: &str = "stoker-webhook-certificates";
const CONFIGURATION: &str = "stoker-operator";

/// A management cluster whose API server asks the operator.
pub(crate) struct Guarded {
    pub(crate) operators: Vec<Operator>,
    pub(crate) bare: Bare,
    port: u16,
    metrics: u16,
    kubectl: PathBuf,
}

/// A tenant whose spec is the smallest one, changed by `change`.
pub(crate) fn tenant(name: &str, change: &Value) -> Value {
    let mut tenant = smallest(name, "v1.36.3", "ClusterIP", change);
    tenant["metadata"]["namespace"] = json!("a");
    tenant
}

/// A spec whose pod no API server takes, which neither schema nor CEL can see.
pub(crate) fn impossible() -> Value {
    let toleration = json!({ "key": "a", "operator": "Exists", "value": "b" });
    json!({ "controlPlane": { "deployment": { "tolerations": [toleration] } } })
}

/// Entries of the Secret with an authority that is due to be replaced.
pub(crate) fn renewed_soon() -> Value {
    let now = OffsetDateTime::now_utc();
    let authority = Authority::generate("old", Duration::days(200), now).unwrap();
    let request = LeafRequest {
        common_name: "stoker-webhook".to_owned(),
        organizations: Vec::new(),
        usage: LeafUsage::Server,
        dns_names: Vec::new(),
        ip_addresses: vec!["127.0.0.1".parse().unwrap()],
        lifetime: Duration::days(90),
    };
    let leaf = authority.issue(&request, now).unwrap();
    let encode = |text: &str| STANDARD.encode(text);
    json!({
        "ca.crt": encode(authority.certificate()), "ca.key": encode(authority.key().as_pem()),
        "tls.crt": encode(&leaf.certificate), "tls.key": encode(leaf.key.as_pem()),
    })
}

/// That of the installation manifest, by URL.
fn configuration(port: u16) -> ValidatingWebhookConfiguration {
    let text = include_str!("../../../manifests/install.yaml");
    let mut documents = text
        .split("---\n")
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
    let found = documents.find(|object| object["kind"] == "ValidatingWebhookConfiguration");
    let mut object = found.unwrap();
    let client = &mut object["webhooks"][0]["clientConfig"];
    let path = client["service"]["path"].as_str().unwrap();
    *client = json!({ "url": format!("https://127.0.0.1:{port}{path}") });
    serde_json::from_value(object).unwrap()
}

impl Guarded {
    /// With one operator, once it answers.
    pub(crate) async fn start() -> Self {
        let mut guarded = Box::pin(Self::prepare()).await;
        guarded.operate().await;
        guarded
    }

    /// With one that leads and answers nobody, and one that stands by and answers.
    pub(crate) async fn start_with_standby() -> Self {
        let mut guarded = Box::pin(Self::prepare()).await;
        let [elsewhere] = free_ports().unwrap();
        let elsewhere = format!("--webhook-bind-address=127.0.0.1:{elsewhere}");
        let leads = ["--leader-elect=true", "--pod-name=leads", &elsewhere];
        guarded.operators.push(guarded.bare.operator_with(&leads));
        until("it leads", async || guarded.bundle().await.is_some()).await;
        let here = format!("--webhook-bind-address=127.0.0.1:{}", guarded.port);
        let stands_by = ["--leader-elect=true", "--pod-name=stands-by", &here];
        guarded
            .operators
            .push(guarded.bare.operator_with(&stands_by));
        guarded.refuses().await;
        guarded
    }

    async fn prepare() -> Self {
        let bare = Bare::start().await;
        bare.namespace("a").await;
        let upstream = Upstream::open(Steps::new()).unwrap();
        let binaries = upstream.kubernetes(default_kubernetes()).await.unwrap();
        let [port, metrics] = free_ports().unwrap();
        let guarded = Self {
            operators: Vec::new(),
            bare,
            port,
            metrics,
            kubectl: binaries.join("kubectl"),
        };
        let params = PostParams::default();
        let configurations = guarded.configurations();
        configurations
            .create(&params, &configuration(port))
            .await
            .unwrap();
        guarded
    }

    /// Starts an operator and waits until it answers.
    pub(crate) async fn operate(&mut self) {
        let here = format!("--webhook-bind-address=127.0.0.1:{}", self.port);
        let metrics = format!("--metrics-bind-address=127.0.0.1:{}", self.metrics);
        self.operators
            .push(self.bare.operator_with(&[&here, &metrics]));
        self.refuses().await;
    }

    fn configurations(&self) -> Api<ValidatingWebhookConfiguration> {
        Api::all(self.bare.client.clone())
    }

    /// What API servers are told to trust, as PEM.
    pub(crate) async fn bundle(&self) -> Option<String> {
        let found = self.configurations().get(CONFIGURATION).await.unwrap();
        let bundle = found.webhooks?.remove(0).client_config.ca_bundle?;
        String::from_utf8(bundle.0).ok()
    }

    pub(crate) async fn patch_configuration(&self, patch: Value) {
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        let params = PatchParams::default();
        self.configurations()
            .patch(CONFIGURATION, &params, &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete_secret(&self) {
        let secrets = self.bare.secrets("stoker-system");
        secrets
            .delete(SECRET, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// No Deployment may be made in the namespace.
    pub(crate) async fn quota(&self, namespace: &str) {
        let quotas: Api<ResourceQuota> = Api::namespaced(self.bare.client.clone(), namespace);
        let hard = json!({ "count/deployments.apps": "0" });
        let quota = json!({
            "metadata": { "name": "none" }, "spec": { "hard": hard },
            "status": { "hard": hard, "used": { "count/deployments.apps": "0" } },
        });
        let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
        let params = PostParams::default();
        let mut made = quotas.create(&params, &quota).await.unwrap();
        // As its controller would write it.
        made.status = quota.status;
        quotas.replace_status("none", &params, &made).await.unwrap();
        until("the quota holds", async || {
            let (_, said) = self.apply(&tenant("one", &json!({})), &["--dry-run=server"]);
            said.contains("quota")
        })
        .await;
    }

    /// A Service that has the node port.
    pub(crate) async fn node_port(&self, port: u16) {
        let services: Api<Service> = Api::namespaced(self.bare.client.clone(), "a");
        let service = json!({
            "metadata": { "name": "other" },
            "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] },
        });
        let service = serde_json::from_value(service).unwrap();
        services
            .create(&PostParams::default(), &service)
            .await
            .unwrap();
    }

    /// Whether `kubectl apply` takes an object, and what it says.
    pub(crate) fn apply(&self, object: &Value, arguments: &[&str]) -> (bool, String) {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), self.bare.kubeconfig()).unwrap();
        let mut kubectl = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig.path())
            .args([
                "apply",
                "--server-side",
                "--force-conflicts",
                "--filename=-",
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = object.to_string();
        kubectl
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = kubectl.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said.trim().to_owned())
    }

    /// Whether a spec is refused that only the webhook refuses.
    pub(crate) async fn is_refused(&self) -> bool {
        let tenants = self.bare.tenants("a");
        let broken = serde_json::from_value(tenant("refused", &impossible())).unwrap();
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        match tenants.create(&params, &broken).await {
            Ok(_) => false,
            Err(kube::Error::Api(status)) => {
                assert!(status.message.contains("denied the request"), "{status:?}");
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until the webhook answers.
    pub(crate) async fn refuses(&self) {
        until("the webhook answers", async || self.is_refused().await).await;
    }

    /// Prints how long reviews took.
    pub(crate) fn figures(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let reviews = text
            .lines()
            .filter(|line| line.contains("admission_review_seconds"));
        let totals = reviews.filter(|line| !line.contains("bucket"));
        for line in totals {
            println!("{line}");
        }
        assert!(text.contains("stoker_admission_review_seconds_count{result=\"Refused\"}"));
    }
}
