//! Counters of packets that begin a connection: where they leave a control-plane pod or the tenant's node, and behind the walls
//! of management, where they would arrive.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::canary_ways::Canary;
use crate::walled::{Walled, address, nft};

/// Where clouds tell a machine who it is, credentials included.
pub(crate) const METADATA: &str = "169.254.169.254";
/// The first packet of a connection.
const BEGINS: &str = "tcp flags & (fin | syn | rst | ack) == syn";
/// Where the control plane's other processes listen, in the pod itself.
const OWN_PORTS: &str = "{ 10257, 10259, 10271, 8132 }";
const LIST: [&str; 7] = ["nft", "-j", "list", "counters", "table", "inet", "canaries"];

/// Counters in the networks of the management host, of the control-plane pod, and of the node.
pub(crate) struct Counts<'a> {
    walled: &'a Walled<'a>,
    pid: String,
}

impl<'a> Counts<'a> {
    pub(crate) async fn begin(
        walled: &'a Walled<'a>,
        pod: &Pod,
        canaries: &[Canary],
    ) -> Result<Self> {
        let world = walled.world;
        let host = world.host()?;
        nft(&host, &of_management(walled, address(pod)?, canaries)).await?;
        nft(&walled.worker, &of_the_node(canaries)).await?;
        let pid = world.pid(pod, "kube-apiserver").await?;
        host.write("/run/canaries.nft", &of_the_pod(canaries))?;
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

    /// By counter. In all: `sent` by the control plane, what of that `arrived`, and what it dialled on its own `loopback`.
    /// To the canary of that number: `sent-N`, `loopback-N`, and `node-N` what the tenant's node has dialled.
    pub(crate) async fn now(&self) -> Result<BTreeMap<String, u64>> {
        let mut counted = BTreeMap::new();
        for said in [
            self.walled.world.host()?.run(LIST).await?,
            self.walled.worker.run(LIST).await?,
            self.inside(&LIST).await?,
        ] {
            let said: Value = serde_json::from_str(&said)?;
            let entries = said["nftables"].as_array().into_iter().flatten();
            for counter in entries.filter_map(|entry| entry.get("counter")) {
                let name = counter["name"].as_str().context("a counter's name")?;
                let packets = counter["packets"].as_u64().context("a number of packets")?;
                counted.insert(name.to_owned(), packets);
            }
        }
        Ok(counted)
    }

    pub(crate) async fn end(self) -> Result<()> {
        let delete = ["nft", "delete", "table", "inet", "canaries"];
        self.inside(&delete).await?;
        self.walled.worker.run(delete).await?;
        self.walled.world.host()?.run(delete).await.map(drop)
    }
}

/// What leaves the control-plane pod, before walls and Services change it; and what of it got past the walls. But for what
/// nobody keeps from it: its etcd.
fn of_management(walled: &Walled<'_>, pod: IpAddr, canaries: &[Canary]) -> String {
    let pool = walled.world.lab.addresses().pool();
    let etcd = format!("\t\tip saddr {pod} ip daddr {pool} tcp dport 2379 return\n");
    let of_pod = format!("ip saddr {pod}");
    let mut table = Table::default();
    let sent = table.count(&of_pod, "sent") + &table.each(&of_pod, "sent", canaries);
    table.chain("prerouting", -350, &(etcd.clone() + &sent));
    let arrived = etcd + &table.count(&of_pod, "arrived");
    table.chain("input", 200, &arrived);
    table.chain("forward", 200, &arrived);
    table.text()
}

/// What leaves the node, of its own and of its pods, after Services have changed it.
fn of_the_node(canaries: &[Canary]) -> String {
    let mut table = Table::default();
    let dialled = table.each("", "node", canaries);
    table.chain("postrouting", 200, &dialled);
    table.text()
}

fn of_the_pod(canaries: &[Canary]) -> String {
    let own = "oifname \"lo\"";
    let mut table = Table::default();
    let dialled = table.count(&format!("{own} tcp dport {OWN_PORTS}"), "loopback")
        + &table.each(own, "loopback", canaries);
    table.chain("output", 200, &dialled);
    table.text()
}

/// A table of nftables that counts.
#[derive(Default)]
struct Table {
    counters: Vec<String>,
    chains: String,
}

impl Table {
    /// A rule.
    fn count(&mut self, what: &str, name: &str) -> String {
        let counter = format!("\tcounter {name} {{ }}\n");
        if !self.counters.contains(&counter) {
            self.counters.push(counter);
        }
        format!("\t\t{what} {BEGINS} counter name \"{name}\"\n")
    }

    /// A rule for each of them.
    fn each(&mut self, what: &str, name: &str, canaries: &[Canary]) -> String {
        let mut rules = String::new();
        for (number, canary) in canaries.iter().enumerate() {
            let (ip, port) = (canary.ip.to_canonical(), canary.port);
            let there = format!("{what} ip daddr {ip} tcp dport {port}");
            rules += &self.count(&there, &format!("{name}-{number}"));
        }
        rules
    }

    fn chain(&mut self, hook: &str, priority: i32, rules: &str) {
        let chain = format!(
            "\tchain {hook} {{\n\t\ttype filter hook {hook} priority {priority}; policy accept;\n{rules}\t}}\n"
        );
        self.chains.push_str(&chain);
    }

    /// In place of one that is there.
    fn text(self) -> String {
        let (counters, chains) = (self.counters.concat(), self.chains);
        format!(
            "add table inet canaries\ndelete table inet canaries\ntable inet canaries {{\n{counters}{chains}}}\n"
        )
    }
}
