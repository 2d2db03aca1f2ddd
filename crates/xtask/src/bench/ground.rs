//! The lab that everything is measured on.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use kube::Client;
use stoker_lab::command::{cargo, run};
use stoker_lab::handwritten::Handwritten;
use stoker_lab::lab::{Lab, LabOptions};

use super::sightings::Sightings;
use super::tenant::Tenant;
use super::{machine, readyz};

/// Nothing measured here takes longer, or it is broken: two cores with thirty control planes on them are slow.
pub(super) const LIMIT: Duration = Duration::from_mins(8);
/// How long a busy machine is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The lab `bench` with Stoker on it.
pub(super) struct Ground {
    pub(super) lab: Lab,
    pub(super) client: Client,
    pub(super) sightings: Sightings,
}

/// A moment of a birth.
pub(super) type Moment = fn(&Birth) -> Duration;

/// When things happened, since the objects began to be applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Birth {
    /// A watch saw the Deployment.
    pub(super) deployment: Duration,
    /// `/readyz` answered.
    pub(super) answered: Duration,
    /// The pod's condition `Ready`.
    pub(super) pod_ready: Duration,
}

impl Ground {
    /// Brings the lab up where it is not.
    ///
    /// # Errors
    /// When a step of the lab fails.
    pub(super) async fn prepare() -> Result<Self> {
        // Hosts run this program; it is not a library of ours.
        let built = cargo(["build", "--quiet", "--package", "stoker-lab"])
            .status()
            .context("starting cargo")?;
        ensure!(built.success(), "stoker-lab does not build");
        let lab = Lab::new(LabOptions::named("bench"))?;
        lab.up().await?;
        lab.install_stoker().await?;
        let client = lab.management_client().await?;
        let sightings = Sightings::start(&client);
        Ok(Self {
            lab,
            client,
            sightings,
        })
    }

    /// Waits for a quiet moment and says how busy the machine is.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(super) async fn quiet(&self) -> Result<f64> {
        let busy = machine::quiet(PATIENCE).await?;
        if busy > 0.5 {
            let steps = self.lab.steps();
            steps.note(format!(
                "the machine is busy with something else: {busy:.2} CPUs"
            ));
        }
        Ok(busy)
    }

    /// What happens in a namespace after `begun`, up to a ready pod.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn born(
        &self,
        namespace: &str,
        begun: Instant,
        every: Duration,
    ) -> Result<Birth> {
        let sightings = &self.sightings;
        let deployment = sightings
            .wait(namespace, "Deployment", LIMIT, |seen| seen.deployment)
            .await?;
        let address = sightings
            .wait(namespace, "pod address", LIMIT, |seen| seen.address.clone())
            .await?;
        let answered = readyz::answered(&address, every, LIMIT).await?;
        let pod_ready = sightings
            .wait(namespace, "ready pod", LIMIT, |seen| seen.pod_ready)
            .await?;
        Ok(Birth {
            deployment: deployment.duration_since(begun),
            answered: answered.duration_since(begun),
            pod_ready: pod_ready.duration_since(begun),
        })
    }

    /// When a tenant's condition `Ready` held.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn ready(&self, tenant: &Tenant) -> Result<Instant> {
        self.sightings
            .wait(tenant.namespace(), "Ready tenant", LIMIT, |seen| {
                seen.tenant_ready
            })
            .await
    }

    /// Prepares that many hand-written control planes.
    ///
    /// # Errors
    /// What the lab says.
    pub(super) async fn handwritten(&self, name: &str, count: usize) -> Result<Vec<Handwritten>> {
        let mut all = Vec::new();
        for number in 1..=count {
            all.push(Handwritten::prepare(&self.lab, &format!("{name}-{number}")).await?);
        }
        Ok(all)
    }

    /// Makes that many tenants at once and waits until all are Ready.
    ///
    /// # Errors
    /// When one does not become Ready.
    pub(super) async fn live_tenants(&self, name: &str, count: usize) -> Result<Vec<Tenant>> {
        let names: Vec<String> = (1..=count)
            .map(|number| format!("{name}-{number}"))
            .collect();
        let tenants = try_join_all(names.iter().map(|name| Tenant::prepare(self, name))).await?;
        try_join_all(tenants.iter().map(Tenant::apply)).await?;
        try_join_all(tenants.iter().map(|tenant| self.ready(tenant))).await?;
        Ok(tenants)
    }

    /// Revision of the pool: one more with every write.
    ///
    /// # Errors
    /// What etcdctl says.
    pub(super) async fn pool_revision(&self) -> Result<f64> {
        let pool = self.lab.pool().await?;
        let mut command = pool.etcdctl();
        let text = run(command.args(["endpoint", "status", "--write-out=json"])).await?;
        let status: serde_json::Value = serde_json::from_str(&text)?;
        status
            .pointer("/0/Status/header/revision")
            .and_then(serde_json::Value::as_f64)
            .context("etcdctl said no revision")
    }

    /// Connections that clients have open to the pool.
    ///
    /// # Errors
    /// What `ss` says.
    pub(super) async fn pool_connections(&self) -> Result<usize> {
        let host = self.lab.host("pool")?;
        let established = ["ss", "-Htn", "state", "established", "sport = :2379"];
        Ok(host.run(established).await?.lines().count())
    }
}
