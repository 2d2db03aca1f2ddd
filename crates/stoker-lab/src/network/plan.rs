//! Which Service has which address: a pure function of what is seen.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt as _;

use super::range::AddressRange;

/// One Service, told from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// `metadata.uid` of the Service.
    pub uid: String,
}

impl ServiceKey {
    fn of(service: &Service) -> Self {
        Self {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
            uid: service.uid().unwrap_or_default(),
        }
    }
}

/// What should be true of addresses and Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The addresses of each Service that has or gets any, one per IP family in the Service's order.
    pub addresses: BTreeMap<ServiceKey, Vec<IpAddr>>,
    /// Those of `addresses` whose status does not say so yet.
    pub announce: Vec<ServiceKey>,
    /// Services that show an address of the range but are no longer of type `LoadBalancer`.
    pub withdraw: Vec<ServiceKey>,
    /// Services that lack one, with the reason.
    pub unmet: BTreeMap<ServiceKey, String>,
}

/// Decides about every Service. `ranges` are of different IP families.
///
/// A Service keeps the address in its status, or in `remembered` where its status was written but not
/// seen again yet. Others get the `spec.loadBalancerIP` they ask for if it is free, else the lowest free
/// one, the oldest Service first. Services with a `loadBalancerClass` belong to other controllers, and so do
/// families without a range.
#[must_use]
pub fn plan<S: Borrow<Service>>(
    services: &[S],
    ranges: &[AddressRange],
    remembered: &BTreeMap<ServiceKey, Vec<IpAddr>>,
) -> Plan {
    let mut services: Vec<&Service> = services.iter().map(Borrow::borrow).collect();
    services.sort_by_key(|service| {
        (
            service.creation_timestamp().map(|time| time.0),
            ServiceKey::of(service),
        )
    });
    let mut plan = Plan::default();
    for range in ranges {
        assign(&mut plan, &services, *range, remembered);
    }
    for service in services {
        let key = ServiceKey::of(service);
        let spec = service.spec.as_ref();
        let shown: Vec<_> = shown_addresses(service, ranges).collect();
        if let Some(addresses) = plan.addresses.get_mut(&key) {
            let v6_first = spec.is_some_and(|spec| families(spec).next() == Some("IPv6"));
            addresses.sort_by_key(|address| address.is_ipv6() != v6_first);
            if shown != *addresses {
                plan.announce.push(key);
            }
        } else if !shown.is_empty() && !spec.is_some_and(is_load_balancer) {
            plan.withdraw.push(key);
        }
    }
    plan
}

/// Gives every Service of the range's family one of its addresses.
fn assign(
    plan: &mut Plan,
    services: &[&Service],
    range: AddressRange,
    remembered: &BTreeMap<ServiceKey, Vec<IpAddr>>,
) {
    let mut taken = BTreeMap::new();
    let mut waiting = Vec::new();
    for service in services {
        let spec = service.spec.as_ref();
        if !spec.is_some_and(|spec| is_ours(spec, range)) {
            continue;
        }
        let key = ServiceKey::of(service);
        let asked = spec.and_then(|spec| asked_address(spec, range));
        let mut known = remembered.get(&key).into_iter().flatten().copied();
        let held = shown_addresses(service, &[range])
            .next()
            .or_else(|| known.find(|address| range.contains(*address)));
        match held.filter(|held| asked.is_none_or(|asked| asked == *held)) {
            Some(held) if !taken.contains_key(&held) => {
                taken.insert(held, key);
            }
            _ => waiting.push((key, asked)),
        }
    }
    // Explicit wishes first, so that no automatic choice takes an address that was asked for.
    waiting.sort_by_key(|(_, asked)| asked.is_none());
    for (key, asked) in waiting {
        match choose(asked, range, &taken) {
            Ok(address) => {
                taken.insert(address, key);
            }
            Err(reason) => {
                plan.unmet.insert(key, reason);
            }
        }
    }
    for (address, key) in taken {
        plan.addresses.entry(key).or_default().push(address);
    }
}

fn choose(
    asked: Option<IpAddr>,
    range: AddressRange,
    taken: &BTreeMap<IpAddr, ServiceKey>,
) -> Result<IpAddr, String> {
    if let Some(asked) = asked {
        if !range.contains(asked) {
            return Err(format!("loadBalancerIP {asked} is outside {range}"));
        }
        return match taken.get(&asked) {
            Some(key) => Err(format!(
                "loadBalancerIP {asked} belongs to {}/{}",
                key.namespace, key.name
            )),
            None => Ok(asked),
        };
    }
    range
        .addresses()
        .find(|address| !taken.contains_key(address))
        .ok_or_else(|| format!("every address of {range} is in use"))
}

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

fn is_ours(spec: &ServiceSpec, range: AddressRange) -> bool {
    let family = if range.is_ipv4() { "IPv4" } else { "IPv6" };
    is_load_balancer(spec)
        && spec.load_balancer_class.is_none()
        && families(spec).any(|wanted| wanted == family)
}

/// The Service's IP families in its order. An API server names them on every Service.
fn families(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let named = spec.ip_families.as_deref().unwrap_or_default();
    let default = named.is_empty().then_some("IPv4");
    named.iter().map(String::as_str).chain(default)
}

/// An address of the other family is no wish for one of this.
fn asked_address(spec: &ServiceSpec, range: AddressRange) -> Option<IpAddr> {
    let asked: IpAddr = spec.load_balancer_ip.as_deref()?.parse().ok()?;
    (asked.is_ipv4() == range.is_ipv4()).then_some(asked)
}

fn shown_addresses<'a>(
    service: &'a Service,
    ranges: &'a [AddressRange],
) -> impl Iterator<Item = IpAddr> + use<'a> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .filter(|address| ranges.iter().any(|range| range.contains(*address)))
}

#[cfg(test)]
mod tests;
