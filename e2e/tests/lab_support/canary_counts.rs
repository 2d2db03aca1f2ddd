//! Counters of packets that begin a connection: where they leave a control-plane pod, and behind the walls of management, where
//! they would arrive.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;

use crate::walled::{TENANT, Walled, address, counter, nft, packets};

/// Where clouds tell a machine who it is, credentials included.
pub(crate) const METADATA: &str = "169.254.169.254";
/// The first packet of a connection.
const BEGINS: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// Counters in the networks of the management host, of the control-plane pod, and of the node.
pub(crate) struct Counts<'a> {
    walled: &'a Walled<'a>,
    pid: String,
}

impl<'a> Counts<'a> {
    pub(crate) async fn begin(walled: &'a Walled<'a>, pod: &Pod) -> Result<Self> {
        let world = walled.world;
        let host = world.host()?;
        nft(&host, &of_management(walled, address(pod)?).await?).await?;
        nft(&walled.worker, &table(&["metadata"], &of_the_node())).await?;
        let pid = world.pid(pod, "kube-apiserver").await?;
        let own = "oifname \"lo\" tcp dport { 10257, 10259, 10271, 8132 }";
        let own = chain("output", 200, &count(own, "loopback"));
        host.write("/run/canaries.nft", &table(&["loopback"], &own))?;
        let counts = Self { walled, pid };
        counts.inside(&["nft", "-f", "/run/canaries.nft"]).await?;
        Ok(counts)
    }

    async fn inside(&self, words: &[&str]) -> Result<String> {
        let enter = ["nsenter", "-t", &self.pid, "-n", "--"];
        self.walled
            .world
            .host()?
            .run(enter.iter().chain(words))
            .await
    }

    pub(crate) async fn now(&self) -> Result<BTreeMap<&'static str, u64>> {
        let host = self.walled.world.host()?;
        let list = [
            "nft", "-j", "list", "counter", "inet", "canaries", "loopback",
        ];
        Ok([
            (
                "sent by the control plane",
                counter(&host, "canaries", "sent").await?,
            ),
            (
                "sent by the tenant's node",
                counter(&host, "canaries", "tenant").await?,
            ),
            ("arrived", counter(&host, "canaries", "arrived").await?),
            (
                "to the node's metadata service",
                counter(&self.walled.worker, "canaries", "metadata").await?,
            ),
            ("to its own loopback", packets(&self.inside(&list).await?)?),
        ]
        .into())
    }

    pub(crate) async fn end(self) -> Result<()> {
        let delete = ["nft", "delete", "table", "inet", "canaries"];
        self.inside(&delete).await?;
        self.walled.worker.run(delete).await?;
        self.walled.world.host()?.run(delete).await.map(drop)
    }
}

/// What leaves the control-plane pod, or the node, before walls and Services change it; and what of the pod's got past the walls.
/// But for what nobody keeps from them: its etcd, and the tenant's own address.
async fn of_management(walled: &Walled<'_>, pod: IpAddr) -> Result<String> {
    let status = walled.world.status(TENANT).await?;
    let endpoint = status.control_plane_endpoint.context("no endpoint")?;
    let endpoint = endpoint.split(':').next().unwrap_or_default();
    let (pool, node) = (walled.world.lab.addresses().pool(), walled.worker.address());
    let etcd = format!("\t\tip saddr {pod} ip daddr {pool} tcp dport 2379 return\n");
    let of = |source: &str, name: &str| count(&format!("ip saddr {source}"), name);
    let pod = pod.to_string();
    let node = of(&format!("{node} ip daddr != {endpoint}"), "tenant");
    let sent = chain(
        "prerouting",
        -350,
        &(etcd.clone() + &of(&pod, "sent") + &node),
    );
    let arrived = etcd + &of(&pod, "arrived");
    let arrived = chain("input", 200, &arrived) + &chain("forward", 200, &arrived);
    Ok(table(&["sent", "tenant", "arrived"], &(sent + &arrived)))
}

fn of_the_node() -> String {
    let metadata = count(&format!("ip daddr {METADATA}"), "metadata");
    chain("forward", 200, &metadata) + &chain("output", 200, &metadata)
}

fn table(counters: &[&str], chains: &str) -> String {
    let counters = counters
        .iter()
        .map(|name| format!("\tcounter {name} {{ }}"));
    let counters: Vec<_> = counters.collect();
    let counters = counters.join("\n");
    format!(
        "add table inet canaries\ndelete table inet canaries\ntable inet canaries {{\n{counters}\n{chains}}}\n"
    )
}

fn chain(hook: &str, priority: i32, rules: &str) -> String {
    format!(
        "\tchain {hook} {{\n\t\ttype filter hook {hook} priority {priority}; policy accept;\n{rules}\t}}\n"
    )
}

fn count(what: &str, name: &str) -> String {
    format!("\t\t{what} {BEGINS} counter name \"{name}\"\n")
}
