//! The lab's bridge and each host's cable to it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;

use crate::addresses::Addresses;
use crate::command::{program, run};
use crate::paths::labs;

/// Name of the lab's bridge in the machine's root namespace (at most 15 characters).
pub(crate) fn bridge(addresses: Addresses) -> String {
    format!("stoker{}", addresses.gateway().octets()[2])
}

/// Checks that no other lab and no other network of this machine uses the lab's addresses.
pub(crate) async fn ensure_free(addresses: Addresses, lab: &str) -> Result<()> {
    let others = labs().into_iter().filter(|other| other != lab);
    if let Some(other) = others
        .into_iter()
        .find(|other| Addresses::of(other) == addresses)
    {
        bail!("the labs `{lab}` and `{other}` would use the same addresses; choose another name");
    }
    let routes = run(&mut program("ip", ["-4", "route", "show"])).await?;
    if let Some((network, device)) = taken(&routes, addresses) {
        bail!(
            "the network {network} on {device} overlaps the lab's ({}); choose another name for the lab \
             with --lab or STOKER_LAB_NAME, from which other addresses follow",
            addresses.networks().join(", ")
        );
    }
    Ok(())
}

/// The first route that is not ours and not a default route, and overlaps the lab's networks.
fn taken(routes: &str, addresses: Addresses) -> Option<(Ipv4Net, String)> {
    let ours = bridge(addresses);
    let networks: Vec<Ipv4Net> = addresses
        .networks()
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    routes.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let destination = words.next()?;
        let network = destination
            .parse::<Ipv4Net>()
            .ok()
            .or_else(|| Ipv4Net::new(destination.parse().ok()?, 32).ok())?;
        let device = words
            .skip_while(|word| *word != "dev")
            .nth(1)
            .unwrap_or("?")
            .to_owned();
        let overlaps = |other: &Ipv4Net| other.contains(&network) || network.contains(other);
        (device != ours && network.prefix_len() > 0 && networks.iter().any(overlaps))
            .then_some((network, device))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_another_device_is_seen_and_our_own_is_not() {
        let demo = Addresses::of("demo");
        let found = |routes| taken(routes, demo).map(|(_, device)| device);
        assert_eq!(
            found("172.16.0.0/12 dev docker0 proto kernel").as_deref(),
            Some("docker0")
        );
        assert_eq!(
            found("10.201.0.7 via 192.0.2.1 dev eth0").as_deref(),
            Some("eth0")
        );
        assert_eq!(
            found("default via 192.0.2.1 dev eth0\n172.30.0.0/24 dev stoker0"),
            None
        );
        assert_eq!(found("172.30.1.0/24 dev stoker1"), None);
    }
}
