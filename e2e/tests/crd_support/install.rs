//! `manifests/install.yaml`, applied by the kubectl of the same release, and what the installed operator may do.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use stoker_lab::bare::BareApiServer;
use stoker_lab::steps::Steps;
use stoker_lab::upstream::Upstream;
use stoker_lab::versions::KubernetesVersion;

use crate::{create, documents, file};

pub(crate) const MANIFEST: &str = "manifests/install.yaml";
pub(crate) const GATEWAY: &str = "manifests/gateway.yaml";
/// `kubectl apply`, and as the documentation has it.
const CLIENT_SIDE: [&str; 1] = ["apply"];
pub(crate) const SERVER_SIDE: [&str; 2] = ["apply", "--server-side"];

/// A management cluster without nodes, and kubectl for it.
pub(crate) struct Server {
    process: BareApiServer,
    kubectl: PathBuf,
    pub(crate) kubeconfig: tempfile::NamedTempFile,
}

impl Server {
    pub(crate) async fn start(version: KubernetesVersion) -> Self {
        let upstream = Upstream::open(Steps::new()).unwrap();
        let kubectl = upstream.kubernetes(version).await.unwrap().join("kubectl");
        let api_server = BareApiServer::start_version(version).await.unwrap();
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), api_server.kubeconfig()).unwrap();
        let client = api_server.client().await.unwrap();
        let serving = client.apiserver_version().await.unwrap().git_version;
        assert_eq!(serving, version.version);
        Self {
            process: api_server,
            kubectl,
            kubeconfig,
        }
    }

    async fn client(&self) -> Client {
        self.process.client().await.unwrap()
    }

    /// Runs kubectl; it must neither fail nor warn. Returns what it prints.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig.path())
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && said.is_empty(),
            "kubectl {arguments:?}: {said}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Installs as a person would, and waits until the CRDs are served.
    pub(crate) fn install(&self, way: &[&str]) -> String {
        let manifest = file(MANIFEST).display().to_string();
        let said = self.kubectl(&[way, &["--filename", &manifest]].concat());
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]);
        said
    }

    /// Generation and version of everything in the manifest.
    fn versions(&self) -> String {
        let what = r"-o=jsonpath={range .items[*]}{.kind} {.metadata.generation} {.metadata.resourceVersion}{'\n'}{end}";
        self.kubectl(&[
            "get",
            what,
            "--filename",
            &file(MANIFEST).display().to_string(),
        ])
    }
}

pub(crate) async fn kubectl_installs_and_installs_again_without_a_change(
    version: KubernetesVersion,
) {
    for way in [&CLIENT_SIDE[..], &SERVER_SIDE[..]] {
        let server = Server::start(version).await;
        let said = server.install(way);
        assert_eq!(said.lines().count(), documents(MANIFEST).len(), "{said}");
        let before = server.versions();
        let said = server.install(way);
        assert_eq!(before, server.versions(), "{way:?}: {said}");
    }
}

/// A pod as the Deployment of a manifest makes it.
fn pod_of(manifest: &str) -> Value {
    let documents = documents(manifest);
    let mut deployments = documents
        .iter()
        .filter(|document| document["kind"] == "Deployment");
    let deployment = deployments.next().unwrap();
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = deployment["metadata"]["name"].clone();
    pod
}

pub(crate) async fn the_installed_operator_keeps_to_the_restricted_profile(
    version: KubernetesVersion,
) {
    let server = Server::start(version).await;
    server.install(&SERVER_SIDE);
    server.kubectl(&["apply", "--filename", &file(GATEWAY).display().to_string()]);
    let client = server.client().await;
    let pods = "/api/v1/namespaces/stoker-system/pods";
    let mut pod = pod_of(GATEWAY);
    create(&client, pods, &pod).await.unwrap();
    pod = pod_of(MANIFEST);
    create(&client, pods, &pod).await.unwrap();
    pod["metadata"]["name"] = json!("privileged");
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = create(&client, pods, &pod).await.unwrap_err();
    assert!(
        refused
            .message
            .contains("violates PodSecurity \"restricted"),
        "{refused:?}"
    );
}

/// Whether the operator's service account may do `verb` on `resource` (`group/resource` or `group/resource/name`).
async fn may(client: &Client, verb: &str, resource: &str, namespace: &str) -> bool {
    let mut parts = resource.split('/');
    let (group, resource, name) = (parts.next(), parts.next(), parts.next());
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:stoker-system:stoker-operator",
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "name": name,
                "namespace": namespace,
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    create(client, path, &review).await.unwrap()["status"]["allowed"] == true
}

pub(crate) async fn the_installed_operator_may_do_its_work_and_nothing_else(
    version: KubernetesVersion,
) {
    let server = Server::start(version).await;
    server.install(&SERVER_SIDE);
    let client = server.client().await;
    let begun = Instant::now();
    while !may(&client, "patch", "apps/deployments", "any").await {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the roles do not hold"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (verb, resource, namespace) in [
        ("watch", "stoker.dev/tenantcontrolplanes", ""),
        ("delete", "stoker.dev/tenantcontrolplanes", "any"),
        ("patch", "/secrets", "any"),
        ("create", "events.k8s.io/events", "any"),
        (
            "update",
            "coordination.k8s.io/leases/stoker",
            "stoker-system",
        ),
        ("watch", "discovery.k8s.io/endpointslices", "default"),
        (
            "patch",
            "admissionregistration.k8s.io/validatingwebhookconfigurations/stoker-operator",
            "",
        ),
        ("get", "node.k8s.io/runtimeclasses/any", ""),
    ] {
        assert!(
            may(&client, verb, resource, namespace).await,
            "cannot {verb} {resource}"
        );
    }
    for (verb, resource, namespace) in [
        ("create", "/pods", "any"),
        ("get", "/nodes", ""),
        ("create", "stoker.dev/tenantcontrolplanes", "any"),
        ("delete", "stoker.dev/datastores", ""),
        ("delete", "/namespaces", ""),
        ("deletecollection", "/secrets", "any"),
        (
            "create",
            "rbac.authorization.k8s.io/clusterrolebindings",
            "",
        ),
        ("impersonate", "/serviceaccounts", "any"),
        ("create", "/serviceaccounts", "any"),
        ("update", "coordination.k8s.io/leases/stoker", "kube-system"),
        (
            "update",
            "coordination.k8s.io/leases/other",
            "stoker-system",
        ),
        ("watch", "discovery.k8s.io/endpointslices", "any"),
        (
            "patch",
            "admissionregistration.k8s.io/validatingwebhookconfigurations/other",
            "",
        ),
        (
            "create",
            "admissionregistration.k8s.io/validatingwebhookconfigurations",
            "",
        ),
        ("delete", "/services", "any"),
        ("delete", "networking.k8s.io/networkpolicies", "any"),
        ("patch", "events.k8s.io/events", "any"),
    ] {
        assert!(
            !may(&client, verb, resource, namespace).await,
            "can {verb} {resource}"
        );
    }
}
