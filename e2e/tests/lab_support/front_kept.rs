//! What a joined node and its pods were when the node had joined, and whether they still are.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::front::{Front, TENANT};
use crate::pods::{restarts, uids};
use crate::world::{BIRTH, eventually};

/// After so long without a sign of life a node is not Ready (`--node-monitor-grace-period`, since 1.32), by a
/// kube-controller-manager that began so long ago at least.
pub(crate) const GRACE: Duration = Duration::from_secs(50);

/// A joined node and the pods of its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    ready_since: Timestamp,
    pods: Vec<String>,
    restarts: i32,
}

/// What there was first, and since when its control plane has been up again.
static NOTED: Mutex<(Option<Kept>, Option<Instant>)> = Mutex::new((None, None));

impl Kept {
    /// Whether something is noted.
    pub(crate) fn is_noted() -> bool {
        noted(|noted| noted.0.is_some())
    }

    /// What is there now, the first time.
    pub(crate) async fn note(front: &Front<'_>) -> Result<()> {
        if Self::is_noted() {
            return Ok(());
        }
        let (client, node) = (&front.tenant.client, front.worker()?);
        let pods = eventually(BIRTH, "all pods of the tenant run", async || {
            let all = all_pods(client).await?;
            let waits = all.iter().find(|pod| !is_ready(pod));
            let waits = waits.map(kube::ResourceExt::name_any);
            ensure!(waits.is_none(), "{waits:?} is not ready");
            Ok(all)
        })
        .await?;
        ensure!(pods.len() > 3, "only {} pods are there", pods.len());
        let seen = Self {
            ready_since: ready_since(client, node.name()).await?,
            pods: uids(&pods),
            restarts: restarts(&pods),
        };
        noted(|noted| noted.0 = Some(seen));
        Ok(())
    }

    /// Its tenant has just been woken.
    pub(crate) fn woken() {
        noted(|noted| noted.1 = Some(Instant::now()));
    }

    /// Waits until a node would have been judged that had not come back since its tenant woke.
    pub(crate) async fn outlives_the_grace() {
        if let Some(woken) = noted(|noted| noted.1) {
            let over = woken + GRACE + Duration::from_secs(5);
            tokio::time::sleep_until(over.into()).await;
        }
    }

    /// All of it is as it was.
    pub(crate) async fn is_still(front: &Front<'_>) -> Result<()> {
        let Some(before) = noted(|noted| noted.0.clone()) else {
            return Ok(());
        };
        ensure!(front.tenant.name == TENANT, "another tenant's");
        let client = &front.tenant.client;
        let mut pods = all_pods(client).await?;
        // Others may have come since.
        pods.retain(|pod| pod.uid().is_some_and(|uid| before.pods.contains(&uid)));
        let now = Self {
            ready_since: ready_since(client, front.worker()?.name()).await?,
            pods: uids(&pods),
            restarts: restarts(&pods),
        };
        ensure!(now == before, "it was {before:?}, is {now:?}");
        Ok(())
    }
}

fn noted<T>(with: impl FnOnce(&mut (Option<Kept>, Option<Instant>)) -> T) -> T {
    let mut noted = NOTED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    with(&mut noted)
}

async fn all_pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::all(client.clone());
    Ok(pods.list(&ListParams::default()).await?.items)
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|found| found.type_ == "Ready" && found.status == "True")
}

/// Since when the node is Ready without interruption, and nothing keeps pods off it.
pub(crate) async fn ready_since(client: &Client, node: &str) -> Result<Timestamp> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(node).await?;
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    ensure!(taints.is_empty(), "the node is tainted: {taints:?}");
    let conditions = node.status.and_then(|status| status.conditions);
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|found| found.type_ == "Ready");
    let ready = ready.context("the node says nothing")?;
    ensure!(ready.status == "True", "the node is not Ready: {ready:?}");
    let since = ready.last_transition_time;
    Ok(since.context("Ready since no time")?.0)
}
