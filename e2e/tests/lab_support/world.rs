//! The lab that all scenarios share, and its tenants as their users see them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};
use stoker_lab::command::{cargo, run};
use stoker_lab::host::Host;
use stoker_lab::lab::{Lab, LabOptions};
use stoker_lab::paths::checkout;

use crate::conditions::{described, find};
use crate::tenants::smallest;

/// A birth takes seconds; this is for a machine that does much else.
pub(crate) const BIRTH: Duration = Duration::from_secs(150);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The lab and its management cluster.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) management: Client,
}

/// A tenant that was Ready, seen with its administrator's kubeconfig.
pub(crate) struct Tenant {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) kubeconfig: String,
    pub(crate) client: Client,
}

impl World {
    /// Brings up a lab with Stoker on it, under another name where the environment says so.
    pub(crate) async fn up(mut options: LabOptions) -> Result<Self> {
        if !flag("STOKER_LAB_AS_IT_IS") {
            build_lab_program().await?;
        }
        if let Ok(name) = std::env::var("STOKER_LAB_NAME") {
            options.name = name;
        }
        let lab = Lab::new(options)?;
        let started = async {
            if !flag("STOKER_LAB_AS_IT_IS") {
                lab.up().await?;
                lab.install_stoker().await?;
            }
            lab.management_client().await
        };
        match started.await {
            Ok(management) => Ok(Self { lab, management }),
            Err(error) => {
                let logs = logs("up");
                let _ = lab.collect_logs(&logs).await;
                if !flag("STOKER_KEEP_LAB") {
                    let _ = lab.down().await;
                }
                Err(error.context(format!("logs are in {}", logs.display())))
            }
        }
    }

    /// Takes it down, unless it is to be kept.
    pub(crate) async fn down(&self) -> Result<()> {
        if flag("STOKER_KEEP_LAB") {
            return Ok(());
        }
        self.lab.down().await
    }

    /// The management host.
    pub(crate) fn host(&self) -> Result<Host> {
        self.lab.host(stoker_lab::management::HOST)
    }

    pub(crate) fn tenants(&self, namespace: &str) -> Api<TenantControlPlane> {
        Api::namespaced(self.management.clone(), namespace)
    }

    pub(crate) fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.management.clone(), namespace)
    }

    /// Applies a tenant in the namespace of its name: the smallest spec, changed by `change`.
    pub(crate) async fn apply_tenant(&self, name: &str, change: Value) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.management.clone());
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        });
        let params = PatchParams::apply("e2e").force();
        namespaces
            .patch(name, &params, &Patch::Apply(namespace))
            .await
            .context("making a namespace")?;
        let version = self.lab.kubernetes().version;
        let object = smallest(name, version, "LoadBalancer", &change);
        self.tenants(name)
            .patch(name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("applying the tenant {name}"))
            .map(drop)
    }

    /// A tenant that is Ready, made when it is not there.
    pub(crate) async fn tenant(&self, name: &str) -> Result<Tenant> {
        if self.tenants(name).get_opt(name).await?.is_none() {
            self.apply_tenant(name, json!({})).await?;
        }
        self.ready(name).await
    }

    /// The tenant of `examples/tenant.yaml`, as the main job leaves it.
    pub(crate) async fn main_tenant(&self) -> Result<Tenant> {
        let name = stoker_lab::demo::TENANT;
        if self.tenants(name).get_opt(name).await?.is_none() {
            self.lab.main_job().await?;
        }
        self.ready(name).await
    }

    /// Waits until the tenant is Ready.
    pub(crate) async fn ready(&self, name: &str) -> Result<Tenant> {
        let begun = Instant::now();
        eventually(BIRTH, &format!("the tenant {name} is Ready"), async || {
            let status = self.status(name).await?;
            let ready = find(&status.conditions, "Ready");
            ensure!(
                ready.is_some_and(|ready| ready.status == "True"),
                "its conditions: {:?}",
                described(&status.conditions)
            );
            Ok(())
        })
        .await?;
        println!(
            "{name}: Ready after {:.1} s more",
            begun.elapsed().as_secs_f64()
        );
        let tenant = self.seen_by_its_admin(name).await?;
        // The pod is ready; the node's kube-proxy takes a moment to send anybody there.
        let ready = Instant::now();
        eventually(
            Duration::from_secs(30),
            "a Ready tenant answers",
            async || {
                tenant
                    .client
                    .apiserver_version()
                    .await
                    .context("asking its version")
                    .map(drop)
            },
        )
        .await?;
        if ready.elapsed() > LOOK {
            println!(
                "{name}: its endpoint answers {:.1?} after Ready",
                ready.elapsed()
            );
        }
        Ok(tenant)
    }

    /// The tenant with the kubeconfig in its Secret.
    pub(crate) async fn seen_by_its_admin(&self, name: &str) -> Result<Tenant> {
        let secret = self
            .secrets(name)
            .get(&format!("{name}-admin-kubeconfig"))
            .await?;
        let kubeconfig = text(&secret, "admin.conf")?;
        Ok(Tenant {
            namespace: name.to_owned(),
            name: name.to_owned(),
            client: self.lab.tenant_client(&kubeconfig).await?,
            kubeconfig,
        })
    }

    /// The tenant's status, empty when it has none yet.
    pub(crate) async fn status(&self, name: &str) -> Result<TenantControlPlaneStatus> {
        Ok(self
            .tenants(name)
            .get(name)
            .await?
            .status
            .unwrap_or_default())
    }

    /// Waits until a condition is as wanted and returns its message.
    pub(crate) async fn condition(
        &self,
        name: &str,
        type_: &str,
        holds: bool,
        says: &str,
    ) -> Result<String> {
        eventually(
            BIRTH,
            &format!("{name}: {type_}={holds} with `{says}`"),
            async || {
                let status = self.status(name).await?;
                let wanted = if holds { "True" } else { "False" };
                match find(&status.conditions, type_) {
                    Some(found) if found.status == wanted && found.message.contains(says) => {
                        Ok(found.message.clone())
                    }
                    _ => bail!("its conditions: {:?}", described(&status.conditions)),
                }
            },
        )
        .await
    }

    /// Deletes the tenant and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        match self
            .tenants(name)
            .delete(name, &DeleteParams::default())
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) => return Err(error).context("deleting a tenant"),
        }
        self.gone(name).await
    }

    /// Waits until the tenant is gone.
    pub(crate) async fn gone(&self, name: &str) -> Result<()> {
        eventually(
            BIRTH,
            &format!("the tenant {name} is gone"),
            async || match self.tenants(name).get_opt(name).await? {
                None => Ok(()),
                Some(tenant) => bail!(
                    "it says {:?}",
                    described(&tenant.status.unwrap_or_default().conditions)
                ),
            },
        )
        .await
    }

    /// The tenant's storage id.
    pub(crate) async fn storage_id(&self, name: &str) -> Result<String> {
        let storage = self.status(name).await?.storage;
        storage
            .map(|storage| storage.setup.schema)
            .context("no storage id is recorded")
    }

    /// What `etcdctl` says as the pool's root.
    pub(crate) async fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        run(self.lab.pool().await?.etcdctl().args(arguments)).await
    }

    /// Keys in the pool that begin with `prefix`.
    pub(crate) async fn pool_keys(&self, prefix: &str) -> Result<Vec<String>> {
        let said = self
            .etcdctl(&["get", prefix, "--prefix", "--keys-only"])
            .await?;
        Ok(said
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Whether the pool has a user and a role of that name.
    pub(crate) async fn pool_identity(&self, id: &str) -> Result<(bool, bool)> {
        let (users, roles) = (
            self.etcdctl(&["user", "list"]).await?,
            self.etcdctl(&["role", "list"]).await?,
        );
        Ok((
            users.lines().any(|user| user == id),
            roles.lines().any(|role| role == id),
        ))
    }
}

/// An entry of a Secret.
pub(crate) fn text(secret: &Secret, key: &str) -> Result<String> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = data.with_context(|| format!("{} has no {key}", secret.name_any()))?;
    String::from_utf8(bytes.0.clone()).context("an entry that is not text")
}

/// Looks until `look` is content; then what it found, or its last complaint.
pub(crate) async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("not within {limit:?}: {what}")));
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// Where the logs of a scenario go.
pub(crate) fn logs(scenario: &str) -> PathBuf {
    checkout().join("target/lab-logs").join(scenario)
}

/// Hosts run the `stoker-lab` program beside this test.
async fn build_lab_program() -> Result<()> {
    let build = cargo(["build", "--quiet", "--package", "stoker-lab"]);
    run(&mut build.into()).await.map(drop)
}
