//! Stoker itself on the lab: its image, `manifests/install.yaml`, and a `DataStore` for the lab's pool. Everything goes
//! through what users have: buildah, kubectl and the files of the repository.

mod gateway;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::command::{cargo, run};
use crate::host::Host;
use crate::images::{self, Image, build_archive};
use crate::lab::Lab;
use crate::management::HOST;
use crate::paths::checkout;

/// Namespace of the operator, as in `manifests/install.yaml`.
pub const NAMESPACE: &str = "stoker-system";
/// Name of the lab's `DataStore`.
pub const DATA_STORE: &str = "default";
/// The operator: its package, and its image in `manifests/install.yaml`, replaced by the one built from this checkout.
const OPERATOR: Program = Program {
    package: "stoker-operator",
    placeholder: "stoker.dev/stoker-operator:v0.1.0",
    variable: "STOKER_OPERATOR",
};
/// The warden, which the operator puts into control-plane pods.
const WARDEN: Program = Program {
    package: "stoker-warden",
    placeholder: "stoker.dev/stoker-warden:v0.1.0",
    variable: "STOKER_WARDEN",
};
/// What runs on tenants' nodes, of which the operator puts the tunnel's agents there.
const NODE: Program = Program {
    package: "stoker-node",
    placeholder: "stoker.dev/stoker-node:v0.1.0",
    variable: "STOKER_NODE",
};
/// Built against the C library of this machine but needing none at run time.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Of an image's directory: the docker archive, and the name of the image in it.
const ARCHIVE: &str = "image.tar";
const REFERENCE: &str = "reference";

/// A binary of this checkout and its image.
struct Program {
    package: &'static str,
    placeholder: &'static str,
    /// Names a binary to take instead of building one.
    variable: &'static str,
}

impl Lab {
    /// Builds the operator from this checkout, installs it from `manifests/install.yaml`, and gives it the lab's pool.
    /// What is there already and unchanged is left alone.
    ///
    /// # Errors
    /// When it does not build, or does not become ready; the error has what kubectl says.
    pub async fn install_stoker(&self) -> Result<()> {
        let steps = self.steps();
        let mut images = Vec::new();
        for (program, building, image) in [
            (&OPERATOR, "building the operator", "operator image"),
            (&WARDEN, "building the warden", "warden image"),
        ] {
            let binary = steps.step(building, program.build()).await?;
            let reference = program.image_reference(&binary)?;
            let load = self.load_program(program, &binary, &reference);
            steps.step(image, load).await?;
            images.push((program.placeholder, reference));
        }
        let binary = steps.step("building stoker-node", NODE.build()).await?;
        let reference = NODE.image_reference(&binary)?;
        let load = self.keep_node_image(&binary, &reference);
        steps.step("stoker-node image", load).await?;
        images.push((NODE.placeholder, reference));
        steps
            .step("installing Stoker", self.apply_install(&images))
            .await?;
        steps
            .step("DataStore for the pool", self.apply_data_store())
            .await
    }

    /// Builds the command-line tool from this checkout and puts it into `.stoker/bin`, as `stokerctl` and as the plugin
    /// `kubectl stoker`.
    ///
    /// # Errors
    /// When it does not build, or cannot be put there.
    pub async fn install_stokerctl(&self) -> Result<()> {
        // Not optimised: a person waits for the build, and not for the tool.
        let build = cargo(["build", "--quiet", "--package", "stokerctl"]);
        run(&mut build.into()).await?;
        let program = target_directory().join("debug/stokerctl");
        let directory = self.paths().people().join("bin");
        std::fs::create_dir_all(&directory).context("making .stoker/bin")?;
        for name in ["stokerctl", "kubectl-stoker"] {
            let link = directory.join(name);
            // Not there on a first run.
            let _ = std::fs::remove_file(&link);
            symlink(&program, &link).with_context(|| format!("linking {name}"))?;
        }
        Ok(())
    }

    /// Runs kubectl against the management cluster and returns what it prints.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(HOST, arguments).await
    }

    /// Runs kubectl with the kubeconfig `name` of `.stoker`.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn kubectl_with(&self, name: &str, arguments: &[&str]) -> Result<String> {
        run(self.kubectl_command(name).await?.args(arguments)).await
    }

    /// Waits until all pods of a Deployment or `DaemonSet` are new and ready, in the cluster of the kubeconfig `at` of
    /// `.stoker`.
    ///
    /// # Errors
    /// What kubectl says, at the latest after three minutes.
    pub async fn rolled_out(&self, at: &str, namespace: &str, object: &str) -> Result<()> {
        let wait = ["rollout", "status", object, "--timeout=180s"];
        let arguments = [&["-n", namespace], &wait[..]].concat();
        self.kubectl_with(at, &arguments).await.map(drop)
    }

    pub(crate) async fn kubectl_command(&self, name: &str) -> Result<tokio::process::Command> {
        let mut command = self.tenant_program("kubectl").await?;
        command
            .arg("--kubeconfig")
            .arg(self.paths().kubeconfig(name));
        Ok(command)
    }

    async fn load_program(&self, program: &Program, binary: &Path, reference: &str) -> Result<()> {
        let host = self.host(HOST)?;
        let present = host
            .run(["ctr", "--namespace", "k8s.io", "images", "list", "--quiet"])
            .await?;
        if present.lines().any(|line| line == reference) {
            return Ok(());
        }
        let directory = self.image_directory(program);
        let archive = program.archive(binary, &directory, reference).await?;
        self.load_image(&archive, reference).await?;
        std::fs::remove_dir_all(&directory).context("removing the image's directory")
    }

    /// Tenants' nodes pull nothing on the lab: the workers that there are get the image now, later ones when they start.
    async fn keep_node_image(&self, binary: &Path, reference: &str) -> Result<()> {
        let directory = self.image_directory(&NODE);
        let noted = directory.join(REFERENCE);
        if std::fs::read_to_string(&noted).ok().as_deref() != Some(reference) {
            NODE.archive(binary, &directory, reference).await?;
            std::fs::write(&noted, reference).context("noting the image's name")?;
        }
        for host in self.hosts() {
            let has_pods = host.program("containerd").is_ok();
            if host.name() != HOST && has_pods && host.is_running() {
                self.give_node_image(&host).await?;
            }
        }
        Ok(())
    }

    /// Puts stoker-node's image on a worker, where Stoker is installed.
    pub(crate) async fn give_node_image(&self, worker: &Host) -> Result<()> {
        let directory = self.image_directory(&NODE);
        let Ok(reference) = std::fs::read_to_string(directory.join(REFERENCE)) else {
            return Ok(());
        };
        let image = Image {
            archive: directory.join(ARCHIVE),
            references: vec![reference],
        };
        images::import(worker, &[image]).await
    }

    fn image_directory(&self, program: &Program) -> PathBuf {
        self.paths()
            .state()
            .join(format!("{}-image", program.package))
    }

    async fn apply_install(&self, images: &[(&str, String)]) -> Result<()> {
        // As kube-controller-manager does on clusters of kubeadm: the operator learns from it what tenants
        // must not reach.
        let pods = self.addresses().pods();
        let network = json!({ "spec": { "podCIDR": pods[0], "podCIDRs": pods } }).to_string();
        self.kubectl(&["patch", "node", HOST, "--type=merge", "--patch", &network])
            .await?;
        let path = checkout().join("manifests/install.yaml");
        let mut manifest = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        for (placeholder, reference) in images {
            manifest = manifest.replace(placeholder, reference);
        }
        self.apply_text(&manifest).await?;
        self.rolled_out(HOST, NAMESPACE, "deployment/stoker-operator")
            .await
    }

    async fn apply_data_store(&self) -> Result<()> {
        let pool = self.pool().await?;
        let pki = self.paths().pool_pki();
        let secret = |name: &str, certificate: &Path, key: &Path| -> Result<Value> {
            let read = |path: &Path| {
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
            };
            Ok(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": name, "namespace": NAMESPACE },
                "stringData": { "tls.crt": read(certificate)?, "tls.key": read(key)? },
            }))
        };
        let reference = |name: &str, key: &str| json!({ "secretReference": { "name": name, "namespace": NAMESPACE, "keyPath": key } });
        let store = json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "DataStore",
            "metadata": { "name": DATA_STORE },
            "spec": {
                "driver": "etcd",
                "endpoints": [pool.endpoint.trim_start_matches("https://")],
                "tlsConfig": {
                    "certificateAuthority": {
                        "certificate": reference("pool-ca", "tls.crt"),
                        "privateKey": reference("pool-ca", "tls.key"),
                    },
                    "clientCertificate": {
                        "certificate": reference("pool-root", "tls.crt"),
                        "privateKey": reference("pool-root", "tls.key"),
                    },
                },
            },
        });
        let items = [
            secret("pool-ca", &pki.join("ca.crt"), &pki.join("ca.key"))?,
            secret("pool-root", &pool.certificate, &pool.key)?,
            store,
        ];
        self.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))
            .await?;
        let wait = [
            "wait",
            "--for=condition=Ready",
            &format!("datastore/{DATA_STORE}"),
            "--timeout=60s",
        ];
        self.kubectl(&wait).await.map(drop)
    }
}

impl Program {
    /// Its image, in a directory.
    async fn archive(&self, binary: &Path, directory: &Path, reference: &str) -> Result<PathBuf> {
        let package = self.package;
        let root = directory.join("root");
        std::fs::create_dir_all(&root).context("making the image's root")?;
        // Of an earlier build, which may still be running somewhere.
        let _ = std::fs::remove_file(root.join(package));
        std::fs::copy(binary, root.join(package)).with_context(|| format!("copying {package}"))?;
        let archive = directory.join(ARCHIVE);
        // Of an earlier, interrupted run.
        let _ = std::fs::remove_file(&archive);
        let entry = format!("/{package}");
        build_archive(
            &root,
            &archive,
            reference,
            Some(&entry),
            Some("65532:65532"),
        )
        .await?;
        Ok(archive)
    }

    /// The release binary, static, as `make docker-build` makes it; or the one that its variable names.
    async fn build(&self) -> Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable) {
            return Ok(path.into());
        }
        let mut build = cargo([
            "build",
            "--quiet",
            "--release",
            "--package",
            self.package,
            "--target",
            TARGET,
        ]);
        build.env("RUSTFLAGS", "-C target-feature=+crt-static");
        run(&mut build.into()).await?;
        Ok(target_directory()
            .join(TARGET)
            .join("release")
            .join(self.package))
    }

    /// A tag that changes with the binary, so that a new build is rolled out and the same one is not.
    fn image_reference(&self, binary: &Path) -> Result<String> {
        use std::fmt::Write as _;
        let bytes =
            std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
        let mut tag = String::new();
        for byte in &Sha256::digest(bytes)[..6] {
            write!(tag, "{byte:02x}")?;
        }
        Ok(format!("stoker.dev/{}:{tag}", self.package))
    }
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}
