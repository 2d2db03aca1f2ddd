//! The lab's bridge and each host's cable to it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::addresses::Addresses;
use crate::command::{program, run};

/// Name of the lab's bridge in the machine's root namespace (at most 15 characters).
pub(crate) fn bridge(addresses: Addresses) -> String {
    format!("stoker{}", addresses.gateway().octets()[2])
}

/// Makes the bridge with the machine's own address, and the routes to the management cluster's pods and
/// Services, so that they are reached from the machine's own shell.
pub(crate) async fn make_bridge(addresses: Addresses) -> Result<()> {
    let name = bridge(addresses);
    if !exists(&name) {
        ip(&["link", "add", &name, "type", "bridge"]).await?;
    }
    let own = format!("{}/{}", addresses.gateway(), addresses.host_prefix());
    ip(&["address", "replace", &own, "dev", &name]).await?;
    ip(&["link", "set", &name, "up"]).await?;
    let via = addresses.management().to_string();
    for destination in [addresses.pods(), addresses.services()] {
        ip(&["route", "replace", &destination, "via", &via, "dev", &name]).await?;
    }
    Ok(())
}

/// Removes the bridge; its routes go with it.
pub(crate) async fn remove_bridge(addresses: Addresses) -> Result<()> {
    let name = bridge(addresses);
    if exists(&name) {
        ip(&["link", "delete", &name]).await
    } else {
        Ok(())
    }
}

/// Whether a network interface of that name is in the machine's root namespace.
pub(crate) fn exists(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// Lays the cable of a host and sets up its end as `eth0`.
pub(crate) async fn connect(
    addresses: Addresses,
    lab: &str,
    pid: i32,
    address: Ipv4Addr,
) -> Result<()> {
    let bridge = bridge(addresses);
    let [_, _, lab_number, host_number] = address.octets();
    let cable = format!("stoker{lab_number}.{host_number}");
    let target = pid.to_string();
    if exists(&cable) {
        ip(&["link", "delete", &cable]).await?;
    }
    ip(&[
        "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &target,
    ])
    .await
    .with_context(|| format!("laying a cable in the lab `{lab}`"))?;
    ip(&["link", "set", &cable, "master", &bridge, "up"]).await?;
    let own = format!("{address}/{}", addresses.host_prefix());
    let (gateway, management) = (addresses.gateway().to_string(), addresses.management());
    let via = management.to_string();
    let (pods, services) = (addresses.pods(), addresses.services());
    let mut commands = vec![
        vec!["link", "set", "lo", "up"],
        vec!["address", "replace", &own, "dev", "eth0"],
        vec!["link", "set", "eth0", "up"],
        vec!["route", "replace", "default", "via", &gateway],
    ];
    if address != management {
        commands.push(vec!["route", "replace", &pods, "via", &via]);
        commands.push(vec!["route", "replace", &services, "via", &via]);
    }
    for command in commands {
        run(program("nsenter", ["-t", &target, "-n", "ip"]).args(command)).await?;
    }
    for setting in [
        "net.ipv4.ip_forward=1",
        "net.bridge.bridge-nf-call-iptables=1",
    ] {
        run(&mut program(
            "nsenter",
            ["-t", &target, "-n", "sysctl", "-qw", setting],
        ))
        .await
        .with_context(|| format!("setting {setting} in a host (is br_netfilter loaded?)"))?;
    }
    Ok(())
}

async fn ip(arguments: &[&str]) -> Result<()> {
    run(&mut program("ip", arguments)).await.map(drop)
}
