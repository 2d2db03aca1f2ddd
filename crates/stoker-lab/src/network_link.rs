//! The lab's bridge and each host's cable to it.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use crate::addresses::Addresses;
use crate::command::{program, run};

/// Name of the lab's bridge in the machine's root namespace (at most 15 characters).
pub(crate) fn bridge(addresses: Addresses) -> String {
    format!("stoker{}", addresses.gateway().octets()[2])
}

/// Checks that no other lab that runs and no other network of this machine uses the lab's addresses. `running` are the
/// others; what a lab left that was killed is in nobody's way.
pub(crate) async fn ensure_free(addresses: Addresses, lab: &str, running: &[String]) -> Result<()> {
    let mut others = running.iter();
    if let Some(other) = others.find(|other| addresses.are_those_of(Addresses::of(other))) {
        bail!(
            "the labs `{lab}` and `{other}` would use the same addresses; take `{other}` down, or choose another name \
             with --lab or STOKER_LAB_NAME"
        );
    }
    let mut routes = run(&mut program("ip", ["-4", "route", "show"])).await?;
    routes += &run(&mut program("ip", ["-6", "route", "show"])).await?;
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
fn taken(routes: &str, addresses: Addresses) -> Option<(IpNet, String)> {
    let ours = bridge(addresses);
    let networks: Vec<IpNet> = addresses
        .networks()
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    routes.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let destination = words.next()?;
        let network = destination
            .parse::<IpNet>()
            .ok()
            .or_else(|| Some(destination.parse::<IpAddr>().ok()?.into()))?;
        let device = words
            .skip_while(|word| *word != "dev")
            .nth(1)
            .unwrap_or("?")
            .to_owned();
        let overlaps = |other: &IpNet| other.contains(&network) || network.contains(other);
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
    for own in own_addresses(addresses, addresses.gateway()) {
        ip(&[&["address", "replace", &own, "dev", &name], nodad(&own)].concat()).await?;
    }
    ip(&["link", "set", &name, "up"]).await?;
    for (destination, via) in routes_to_management(addresses) {
        ip(&["route", "replace", &destination, "via", &via, "dev", &name]).await?;
    }
    Ok(())
}

/// An address on the bridge, with its network's length, per family.
fn own_addresses(addresses: Addresses, address: Ipv4Addr) -> Vec<String> {
    let lengths = [addresses.host_prefix(), addresses.host_prefix_ipv6()];
    let own = addresses.both(address).into_iter().zip(lengths);
    own.map(|(own, length)| format!("{own}/{length}")).collect()
}

/// Nobody else has an address of the plan; to make sure of an IPv6 one would take a second.
fn nodad(address: &str) -> &'static [&'static str] {
    if address.contains(':') {
        &["nodad"]
    } else {
        &[]
    }
}

/// Networks of pods and Services of the management cluster, each with the way there.
fn routes_to_management(addresses: Addresses) -> Vec<(String, String)> {
    let via = addresses.both(addresses.management());
    let to = |networks: Vec<String>| {
        let ways = networks.into_iter().zip(&via);
        ways.map(|(network, via)| (network, via.to_string()))
            .collect::<Vec<_>>()
    };
    [to(addresses.pods()), to(addresses.services())].concat()
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
    for command in inside(addresses, address) {
        let words = command.split(' ');
        run(program("nsenter", ["-t", &target, "-n"]).args(words))
            .await
            .with_context(|| format!("`{command}` in a host (is br_netfilter loaded?)"))?;
    }
    Ok(())
}

/// The setting by which TCP's congestion control is chosen for a network namespace. A new one has the machine's.
pub(crate) const CONGESTION_CONTROL: &str = "net.ipv4.tcp_congestion_control";
const LINUX_DEFAULT: &str = "cubic";

/// What hosts have unless somebody chose another, and so those of a lab, whatever this machine has: bbr sends at a pace, by timers,
/// which on paths of microseconds costs a tenth of all that a copy between two hosts takes. Nothing where a namespace may not
/// have it.
pub(crate) fn congestion_control() -> Option<&'static str> {
    let allowed = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";
    let allowed = std::fs::read_to_string(allowed).unwrap_or_default();
    let mut allowed = allowed.split_whitespace();
    allowed
        .any(|found| found == LINUX_DEFAULT)
        .then_some(LINUX_DEFAULT)
}

/// What sets up a host's end of its cable, and has it forward what its pods send.
fn inside(addresses: Addresses, address: Ipv4Addr) -> Vec<String> {
    let mut commands = vec!["ip link set lo up".to_owned()];
    for own in own_addresses(addresses, address) {
        let words = [&["ip address replace", &own, "dev eth0"], nodad(&own)].concat();
        commands.push(words.join(" "));
    }
    commands.push("ip link set eth0 up".to_owned());
    let gateways = addresses.both(addresses.gateway());
    commands.extend(
        gateways
            .iter()
            .map(|via| format!("ip route replace default via {via}")),
    );
    if address != addresses.management() {
        let routes = routes_to_management(addresses).into_iter();
        commands.extend(routes.map(|(to, via)| format!("ip route replace {to} via {via}")));
    }
    let mut settings = vec![
        "net.ipv4.ip_forward=1",
        "net.bridge.bridge-nf-call-iptables=1",
    ];
    let congestion_control =
        congestion_control().map(|chosen| format!("{CONGESTION_CONTROL}={chosen}"));
    settings.extend(congestion_control.as_deref());
    if addresses.ipv6(address).is_some() {
        settings.extend([
            "net.ipv6.conf.all.forwarding=1",
            // kubeadm looks there.
            "net.ipv6.conf.default.forwarding=1",
            "net.bridge.bridge-nf-call-ip6tables=1",
        ]);
    }
    commands.extend(
        settings
            .iter()
            .map(|setting| format!("sysctl -qw {setting}")),
    );
    commands
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
        let both = demo.with_ipv6();
        let vpn = "fd53:746f:6b72::/48 dev vpn0 metric 1024";
        assert_eq!(taken(vpn, demo), None);
        assert_eq!(
            taken(vpn, both).map(|(_, device)| device).as_deref(),
            Some("vpn0")
        );
    }
}
