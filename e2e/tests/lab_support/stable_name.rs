//! A tenant gets another address while people and a joined node use it, by its address and by a stable name.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::json;
use stoker_lab::host::Host;

use crate::addressed::{Addressed, published};
use crate::node_dials::talks_to;
use crate::node_lease::renewed;
use crate::pods::{restarts, uids};
use crate::world::{BIRTH, World, eventually};

const TENANT: &str = "named";
const DOMAIN: &str = "clusters.lab.test";
const WORKER: u8 = 1;
/// A kubelet renews its node's lease every ten seconds.
const RENEWED: Duration = Duration::from_secs(15);
/// After so long without a renewal a node is not Ready (`--node-monitor-grace-period`, since 1.32). A client finds out
/// after 45 s that nobody is there any more (HTTP/2: 30 s without a word, then 15 s without an answer).
const GRACE: Duration = Duration::from_secs(50);

/// Without a base domain the endpoint is the address, and changes with it.
pub(crate) async fn a_changed_address_arrives_everywhere_and_restarts_nothing(
    world: &World,
) -> Result<()> {
    let name = "moved";
    world.tenant(name).await?;
    let tenant = Addressed::of(world, name).await?;
    let address = world.lab.addresses().load_balancers().1.into();
    let begun = Instant::now();
    tenant.move_to(address).await?;
    tenant.named_everywhere(&format!("{address}:6443")).await?;
    tenant.slices(&[("kubernetes", &[address])]).await?;
    let named = begun.elapsed();
    tenant.serves(address, &address.to_string()).await?;
    println!(
        "another address: named everywhere after {:.1} s, in the serving certificate after {:.1} s",
        named.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    let admin = world.ready(name).await?;
    let namespaces: Api<Namespace> = Api::all(admin.client.clone());
    namespaces.get("kube-system").await?;
    tenant.restarted_nothing().await?;
    world.delete(name).await
}

/// With one, the endpoint is the name, and the provider's DNS follows the load balancer. That lets go of what is
/// connected through the old address later, and then without a word.
pub(crate) async fn a_node_that_joined_by_the_stable_name_notices_no_change_of_address(
    world: &World,
) -> Result<()> {
    let name = TENANT;
    world.lab.serve_names().await?;
    world.lab.give_base_domain(DOMAIN).await?;
    let conntrack =
        json!([{ "op": "add", "path": "/conntrack", "value": { "maxPerCore": 0, "min": 0 } }]);
    let proxy = json!({ "addons": { "kubeProxy": { "configurationJSONPatches": conntrack } } });
    world.apply_tenant(name, proxy).await?;
    let host = dns_follows(world, name).await?;
    world.ready(name).await?;
    world.lab.write_tenant_kubeconfig(name, name).await?;
    let worker = world.lab.add_worker(WORKER, world.lab.kubernetes()).await?;
    let kubeconfig = world.lab.paths().kubeconfig(name);
    world.lab.join(&worker, &kubeconfig).await?;
    world.lab.start_workload(name).await?;
    world.lab.check_workload(name).await?;

    let tenant = Addressed::of(world, name).await?;
    tenant.named_everywhere(&format!("{host}:6443")).await?;
    let joined = Joined::seen(&tenant.inside, &worker).await?;
    // A kubelet that asks for it before its Node is registered asks again ten seconds later.
    eventually(RENEWED, "the node has a lease", async || {
        joined.lease_age().await
    })
    .await?;
    let before = published(world, name).await?;
    let [old] = before[..] else {
        anyhow::bail!("the load balancer publishes {before:?}")
    };
    ensure!(
        talks_to(joined.worker, old).await?,
        "the node does not dial {old}"
    );
    let new = world.lab.addresses().load_balancers().1.into();
    let moved = moves(world, &tenant, &joined, &host, (old, new));
    let oldest = joined.lives_while(moved).await?;
    println!(
        "the node's lease was {:.1} s old at most",
        oldest.as_secs_f64()
    );
    ensure!(oldest < RENEWED, "a renewal was missed");
    let oldest = joined
        .lives_while(is_cut(world, &joined, (old, new)))
        .await?;
    println!(
        "the old address falls silent: the node's lease was {:.1} s old at most, of {GRACE:?}",
        oldest.as_secs_f64()
    );
    joined.noticed_nothing().await?;
    world.lab.check_workload(name).await?;
    tenant.named_everywhere(&format!("{host}:6443")).await?;
    tenant.restarted_nothing().await?;

    world.lab.remove_worker(WORKER).await?;
    std::fs::remove_file(&kubeconfig).context("removing the tenant's kubeconfig")?;
    world.delete(name).await
}

/// What a provider's external-dns does: the tenant's name leads to what its load balancer publishes.
async fn dns_follows(world: &World, name: &str) -> Result<String> {
    let (host, addresses) = eventually(BIRTH, "the tenant has a name and addresses", async || {
        let endpoint = world.status(name).await?.control_plane_endpoint;
        let endpoint = endpoint.context("no endpoint")?;
        let host = endpoint.strip_suffix(":6443").context("another port")?;
        ensure!(host.ends_with(DOMAIN), "it is reached at {endpoint}");
        let addresses = published(world, name).await?;
        ensure!(!addresses.is_empty(), "nothing is published");
        Ok((host.to_owned(), addresses))
    })
    .await?;
    world.lab.point(&host, &addresses)?;
    Ok(host)
}

/// The change itself, until a pod that was made after it runs.
async fn moves(
    world: &World,
    tenant: &Addressed<'_>,
    joined: &Joined<'_>,
    host: &str,
    (old, new): (IpAddr, IpAddr),
) -> Result<()> {
    let begun = Instant::now();
    let since = || begun.elapsed().as_secs_f64();
    tenant.move_to(new).await?;
    world.lab.point(host, &[new])?;
    eventually(RENEWED, "the node asks DNS", async || {
        let said = joined.worker.run(["getent", "hosts", host]).await?;
        ensure!(said.starts_with(&new.to_string()), "it says {said}");
        Ok(())
    })
    .await?;
    let pointed = since();
    tenant.slices(&[("kubernetes", &[new])]).await?;
    let told = since();
    tenant.serves(new, host).await?;
    tenant.serves(new, &new.to_string()).await?;
    println!(
        "another address: DNS after {pointed:.1} s, the tenant's Service after {told:.1} s, in the serving certificate \
         after {:.1} s",
        since()
    );
    joined.runs_another_pod(world).await?;
    world.lab.check_workload(TENANT).await?;
    ensure!(
        talks_to(joined.worker, old).await?,
        "what was connected was cut"
    );
    Ok(())
}

/// Nothing comes back from the old address any more, also to those who are connected.
async fn is_cut(world: &World, joined: &Joined<'_>, (old, new): (IpAddr, IpAddr)) -> Result<()> {
    eventually(RENEWED, "the lease was just renewed", async || {
        let age = joined.lease_age().await?;
        ensure!(age < Duration::from_secs(1), "{age:?} ago");
        Ok(())
    })
    .await?;
    let begun = Instant::now();
    let connections = ["conntrack", "-D", "-d", &old.to_string()];
    world.host()?.run(connections).await?;
    let found_out = "the node has left the old address for the new one";
    eventually(Duration::from_mins(2), found_out, async || {
        let talks = (
            talks_to(joined.worker, old).await?,
            talks_to(joined.worker, new).await?,
        );
        ensure!(talks == (false, true), "it talks to (old, new): {talks:?}");
        Ok(())
    })
    .await?;
    println!("{found_out} after {:.1?}", begun.elapsed());
    joined.runs_another_pod(world).await
}

/// A joined node and what runs on it, as they were.
struct Joined<'a> {
    inside: &'a Client,
    worker: &'a Host,
    pods: Vec<Pod>,
    ready_since: Option<Timestamp>,
}

impl<'a> Joined<'a> {
    async fn seen(inside: &'a Client, worker: &'a Host) -> Result<Self> {
        let mut joined = Self {
            inside,
            worker,
            pods: Vec::new(),
            ready_since: None,
        };
        joined.pods = joined.pods_now().await?;
        joined.ready_since = joined.ready_since_now().await?;
        Ok(joined)
    }

    async fn pods_now(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::all(self.inside.clone());
        let found = pods.list(&ListParams::default()).await?.items;
        ensure!(found.len() > 3, "only {} pods are there", found.len());
        Ok(found)
    }

    /// Since when the node is Ready without interruption; nothing when it is not.
    async fn ready_since_now(&self) -> Result<Option<Timestamp>> {
        let nodes: Api<Node> = Api::all(self.inside.clone());
        let status = nodes.get(self.worker.name()).await?.status;
        let conditions = status.and_then(|status| status.conditions);
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|found| found.type_ == "Ready" && found.status == "True");
        Ok(ready.and_then(|ready| Some(ready.last_transition_time?.0)))
    }

    async fn lease_age(&self) -> Result<Duration> {
        let renewed = renewed(self.inside, self.worker.name()).await?;
        Ok(Timestamp::now().duration_since(renewed).unsigned_abs())
    }

    /// The kubelet hears of a new pod, and its address reaches the control plane.
    async fn runs_another_pod(&self, world: &World) -> Result<()> {
        let image = stoker_lab::images::agnhost_reference();
        let (name, argument) = ("afterwards", format!("--image={image}"));
        let kubectl = async |arguments: &[&str]| world.lab.kubectl_with(TENANT, arguments).await;
        let delete = ["delete", "pod", name, "--now", "--ignore-not-found"];
        // Of a run that was interrupted.
        kubectl(&delete).await?;
        kubectl(&["run", name, &argument, "--", "pause"]).await?;
        let wait = [
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "pod/afterwards",
        ];
        kubectl(&wait).await?;
        kubectl(&delete).await.map(drop)
    }

    /// How old the node's lease was at most while something else happened. The node was Ready all the time.
    async fn lives_while(&self, other: impl Future<Output = Result<()>>) -> Result<Duration> {
        let mut oldest = Duration::ZERO;
        let watch = async {
            loop {
                let since = self.ready_since_now().await?;
                let before = self.ready_since;
                ensure!(
                    since == before,
                    "Ready since {before:?}, now since {since:?}"
                );
                oldest = oldest.max(self.lease_age().await?);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            ended = watch => ended,
            done = other => done,
        }?;
        Ok(oldest)
    }

    async fn noticed_nothing(&self) -> Result<()> {
        let now = self.ready_since_now().await?;
        let before = self.ready_since;
        ensure!(now == before, "Ready since {before:?}, now since {now:?}");
        let now = self.pods_now().await?;
        ensure!(
            uids(&now) == uids(&self.pods) && restarts(&now) == restarts(&self.pods),
            "pods of the tenant were replaced or restarted"
        );
        Ok(())
    }
}
