//! The operator's own process against a real API server and a real pool, without any node: whatever it writes
//! can be seen, and no pod ever runs.

#[path = "../support/conditions.rs"]
mod conditions;
#[path = "../support/tenants.rs"]
pub(crate) mod tenants;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use conditions::{described, find};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, CustomResourceExt};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{DataStore, JoinToken, KubeconfigGenerator, TenantControlPlane};
use stoker_lab::bare::{BareApiServer, BareEtcd};
use stoker_lab::command::cargo;
use stoker_lab::ports::free_ports;
use tenants::smallest;

/// Management cluster and pool.
pub(crate) struct Bare {
    pub(crate) client: Client,
    pub(crate) pool: BareEtcd,
    pub(crate) api_server: BareApiServer,
    directory: tempfile::TempDir,
}

/// A running operator; killed when dropped.
pub(crate) struct Operator {
    process: Child,
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Already ended when a test killed it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Operator {
    /// SIGKILL, as the kernel does to a process out of memory.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Bare {
    /// A test that fails shows what the operator last said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            println!("--- operator, last lines\n{}", last.join("\n"));
        }
    }
}

impl Bare {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (api_server, pool) = tokio::join!(
            BareApiServer::start(),
            BareEtcd::start_secured(stoker_lab::versions::ETCD)
        );
        let (api_server, pool) = (api_server.unwrap(), pool.unwrap());
        let client = api_server.client().await.unwrap();
        let bare = Self {
            client,
            pool,
            api_server,
            directory: tempfile::tempdir().unwrap(),
        };
        for crd in [
            TenantControlPlane::crd(),
            DataStore::crd(),
            KubeconfigGenerator::crd(),
            JoinToken::crd(),
        ] {
            bare.create_crd(crd).await;
        }
        bare.namespace("stoker-system").await;
        bare
    }

    pub(crate) async fn create_crd(&self, crd: CustomResourceDefinition) {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = crd.metadata.name.clone().unwrap();
        crds.create(&PostParams::default(), &crd).await.unwrap();
        until("the CRD is served", async || {
            let crd = crds.get(&name).await.unwrap();
            let conditions = crd
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            conditions
                .iter()
                .any(|found| found.type_ == "Established" && found.status == "True")
        })
        .await;
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.api_server.kubeconfig()
    }

    /// Starts the operator and waits until it leads.
    pub(crate) fn operator(&self) -> Operator {
        self.operator_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn operator_with(&self, arguments: &[&str]) -> Operator {
        self.operator_of(&built("stoker-operator"), arguments, |_| true)
    }

    /// Another operator, given the arguments whose names it knows.
    pub(crate) fn operator_of(
        &self,
        program: &Path,
        arguments: &[&str],
        knows: impl Fn(&str) -> bool,
    ) -> Operator {
        let kubeconfig = self.directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.kubeconfig()).unwrap();
        let log = self.directory.path().join("operator.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let [metrics, health] = free_ports().unwrap();
        let metrics = format!("--metrics-bind-address=127.0.0.1:{metrics}");
        let health = format!("--health-bind-address=127.0.0.1:{health}");
        let mut own = vec!["--leader-elect=false", "--management-cidrs=192.0.2.0/24"];
        own.extend([metrics.as_str(), health.as_str()]);
        own.retain(|argument| argument.split('=').next().is_some_and(&knows));
        let process = Command::new(program)
            .args(unless_given(&own, arguments))
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info,stoker_operator=debug")
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .unwrap();
        Operator { process }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("operator.log")).unwrap_or_default()
    }

    pub(crate) fn tenants(&self, namespace: &str) -> Api<TenantControlPlane> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn data_stores(&self) -> Api<DataStore> {
        Api::all(self.client.clone())
    }

    pub(crate) fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The spec of a `DataStore` for the pool, with its certificates in place.
    pub(crate) fn data_store_spec(&self) -> Value {
        Self::spec_of(&self.pool)
    }

    /// The same for another pool.
    pub(crate) fn spec_of(pool: &BareEtcd) -> Value {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let authority = pool.authority().unwrap();
        let root = pool.client_certificate("root").unwrap();
        json!({
            "driver": "etcd",
            "endpoints": [pool.endpoint().trim_start_matches("https://")],
            "tlsConfig": {
                "certificateAuthority": {
                    "certificate": { "content": encode(authority.certificate()) },
                    "privateKey": { "content": encode(authority.key().as_pem()) },
                },
                "clientCertificate": {
                    "certificate": { "content": encode(&root.certificate) },
                    "privateKey": { "content": encode(root.key.as_pem()) },
                },
            },
        })
    }

    pub(crate) async fn data_store(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "DataStore",
            "metadata": { "name": name }, "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        self.data_stores()
            .patch(name, &params, &Patch::Apply(object))
            .await
            .unwrap();
    }

    /// Creates a tenant whose spec is the smallest one, changed by `change`.
    pub(crate) async fn tenant(&self, namespace: &str, name: &str, change: Value) {
        let object = smallest(name, "v1.36.3", "ClusterIP", &change);
        let params = PatchParams::apply("test").force();
        self.tenants(namespace)
            .patch(name, &params, &Patch::Apply(object))
            .await
            .unwrap();
    }

    /// Waits until a condition of the tenant has this reason, and returns its message.
    pub(crate) async fn tenant_reason(
        &self,
        namespace: &str,
        name: &str,
        condition: &str,
        reason: &str,
    ) -> String {
        let tenants = self.tenants(namespace);
        let mut last = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let status = tenants.get(name).await.unwrap().status.unwrap_or_default();
            last = described(&status.conditions);
            let found = find(&status.conditions, condition);
            if let Some(found) = found.filter(|found| found.reason == reason) {
                return found.message.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "{namespace}/{name}: no {condition}={reason}, but {last:#?}\n{}",
            self.log()
        );
    }

    /// All keys of the pool.
    pub(crate) async fn pool_keys(&self) -> Vec<String> {
        let mut keys = self.etcdctl(&["get", "", "--prefix", "--keys-only"]).await;
        keys.retain(|key| !key.is_empty());
        keys
    }

    /// All users of the pool but root.
    pub(crate) async fn pool_users(&self) -> Vec<String> {
        let mut users = self.etcdctl(&["user", "list"]).await;
        users.retain(|user| user != "root");
        users
    }

    /// What etcdctl prints as root, by line.
    pub(crate) async fn etcdctl(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.pool.etcdctl().args(arguments).output();
        let output = output.await.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Those of `defaults` whose flags are not among `arguments`.
fn unless_given<'a>(defaults: &[&'a str], arguments: &[&str]) -> Vec<&'a str> {
    let flag = |argument: &str| argument.split('=').next().unwrap().to_owned();
    let given: BTreeSet<String> = arguments.iter().map(|argument| flag(argument)).collect();
    let defaults = defaults.iter().copied();
    defaults
        .filter(|default| !given.contains(&flag(default)))
        .collect()
}

const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `holds`, at most 20 s.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(
            begun.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Packages whose binaries are built.
static BUILT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The binary of a package of this very tree, built when the test run did not build it.
pub(crate) fn built(package: &'static str) -> PathBuf {
    // Whoever comes meanwhile waits.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.contains(package) {
        let status = cargo(["build", "--quiet", "--package", package]).status();
        assert!(status.unwrap().success(), "{package} does not build");
        built.insert(package);
    }
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().parent().unwrap().join(package)
}
