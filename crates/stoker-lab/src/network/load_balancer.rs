//! Gives `LoadBalancer` Services an address of this host.
//!
//! kube-proxy translates connections to an address that a Service's status shows; what is missing on
//! a bare machine is somebody who writes that status and answers ARP for the address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Notify;

use super::follow::Followed;
use super::nft;
use super::plan::{Plan, ServiceKey, plan};
use super::range::AddressRange;

/// The nft table, of family inet, that keeps the host's own ports off the Services' addresses.
pub(super) const TABLE: &str = "stoker_lab_load_balancer";

const RETRY: Duration = Duration::from_millis(500);

/// Serves all `LoadBalancer` Services of the cluster; returns only on an error.
pub(super) async fn balance(
    client: Client,
    ranges: &[AddressRange],
    interface: &str,
) -> anyhow::Result<()> {
    let changed = Arc::new(Notify::new());
    let services: Followed<Service> = Followed::start(Api::all(client.clone()), changed.clone());
    services.ready().await?;
    changed.notify_one();

    let mut balancer = Balancer {
        client,
        interface,
        installed: installed_addresses(interface, ranges).await?,
        guarded: None,
        remembered: BTreeMap::new(),
        unmet: BTreeMap::new(),
    };
    loop {
        changed.notified().await;
        let next = plan(&services.objects(), ranges, &balancer.remembered);
        if let Err(error) = balancer.carry_out(next).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "load balancer addresses, will retry"
            );
            tokio::time::sleep(RETRY).await;
            changed.notify_one();
        }
    }
}

struct Balancer<'a> {
    client: Client,
    interface: &'a str,
    installed: BTreeSet<IpAddr>,
    guarded: Option<BTreeSet<IpAddr>>,
    remembered: BTreeMap<ServiceKey, Vec<IpAddr>>,
    unmet: BTreeMap<ServiceKey, String>,
}

impl Balancer<'_> {
    /// An address answers before a status shows it, and is closed to the host's ports before that.
    async fn carry_out(&mut self, plan: Plan) -> anyhow::Result<()> {
        let begun = Instant::now();
        let wanted: BTreeSet<IpAddr> = plan.addresses.values().flatten().copied().collect();
        if self.guarded.as_ref() != Some(&wanted) {
            nft::apply(&guard(&wanted)).await?;
            self.guarded = Some(wanted.clone());
        }
        for address in self
            .installed
            .difference(&wanted)
            .copied()
            .collect::<Vec<_>>()
        {
            change_address("delete", address, self.interface).await?;
            self.installed.remove(&address);
            tracing::info!(%address, "load balancer address released");
        }
        for address in wanted
            .difference(&self.installed)
            .copied()
            .collect::<Vec<_>>()
        {
            change_address("replace", address, self.interface).await?;
            self.installed.insert(address);
        }
        self.remembered = plan.addresses;
        for (service, reason) in &plan.unmet {
            if self.unmet.get(service) != Some(reason) {
                let ServiceKey {
                    namespace, name, ..
                } = service;
                tracing::warn!(namespace, name, reason, "no load balancer address");
            }
        }
        self.unmet = plan.unmet;
        for service in &plan.withdraw {
            self.write_status(service, &[]).await?;
        }
        for service in &plan.announce {
            let addresses = self.remembered.get(service).cloned().unwrap_or_default();
            self.write_status(service, &addresses).await?;
            tracing::info!(
                namespace = service.namespace,
                name = service.name,
                ?addresses,
                milliseconds = begun.elapsed().as_millis(),
                "load balancer address assigned"
            );
        }
        Ok(())
    }

    async fn write_status(&self, service: &ServiceKey, addresses: &[IpAddr]) -> anyhow::Result<()> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &service.namespace);
        let ingress = addresses.iter().map(|address| json!({ "ip": address }));
        let ingress: Vec<_> = ingress.collect();
        // The uid keeps the address from a new Service of the same name.
        let patch = Patch::Merge(json!({
            "metadata": { "uid": service.uid },
            "status": { "loadBalancer": { "ingress": ingress } },
        }));
        match api
            .patch_status(&service.name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            Err(error) => Err(error).with_context(|| {
                format!(
                    "write the status of Service {}/{}",
                    service.namespace, service.name
                )
            }),
        }
    }
}

/// Refuses what kube-proxy did not take to a Service, which would reach the host's own ports.
fn guard(addresses: &BTreeSet<IpAddr>) -> String {
    let replace = nft::replace_prefix(TABLE);
    if addresses.is_empty() {
        return replace;
    }
    let of_family = |keyword: &str, is_ipv4: bool| {
        let family = addresses
            .iter()
            .filter(|address| address.is_ipv4() == is_ipv4);
        let family: Vec<String> = family.map(ToString::to_string).collect();
        if family.is_empty() {
            return String::new();
        }
        let to = format!(
            "\t\t{keyword} daddr {{ {} }} meta l4proto",
            family.join(", ")
        );
        format!("{to} tcp reject with tcp reset\n{to} {{ udp, sctp }} reject\n")
    };
    format!(
        "{replace}table inet {TABLE} {{\n\tchain input {{\n\
         \t\ttype filter hook input priority filter - 4; policy accept;\n\
         \t\tct state established,related accept\n{}{}\t}}\n}}\n",
        of_family("ip", true),
        of_family("ip6", false)
    )
}

async fn change_address(verb: &str, address: IpAddr, interface: &str) -> anyhow::Result<()> {
    let whole = format!("{address}/{}", whole_length(address));
    let mut arguments = vec!["address", verb, &whole, "dev", interface];
    if address.is_ipv6() && verb != "delete" {
        // It answers at once, without a second in which others could say that it is theirs.
        arguments.push("nodad");
    }
    ip(&arguments).await.map(|_| ())
}

/// Length of the prefix that is one address.
fn whole_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The addresses of the ranges on the interface, left there by a former run.
async fn installed_addresses(
    interface: &str,
    ranges: &[AddressRange],
) -> anyhow::Result<BTreeSet<IpAddr>> {
    #[derive(Deserialize)]
    struct Interface {
        #[serde(default)]
        addr_info: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        local: IpAddr,
        prefixlen: u8,
    }
    let output = ip(&["-json", "address", "show", "dev", interface]).await?;
    let interfaces: Vec<Interface> =
        serde_json::from_slice(&output).context("read the output of ip -json address")?;
    let addresses = interfaces
        .into_iter()
        .flat_map(|interface| interface.addr_info);
    Ok(addresses
        .filter(|address| address.prefixlen == whole_length(address.local))
        .map(|address| address.local)
        .filter(|address| ranges.iter().any(|range| range.contains(*address)))
        .collect())
}

async fn ip(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .await
        .context("start ip (Debian package iproute2)")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), message.trim());
    }
    Ok(output.stdout)
}
