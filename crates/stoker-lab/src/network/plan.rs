//! Which Service has which address: a pure function of what is seen.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

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
    /// The address of each Service that has or gets one.
    pub addresses: BTreeMap<ServiceKey, Ipv4Addr>,
    /// Those of `addresses` whose status does not say so yet.
    pub announce: Vec<ServiceKey>,
    /// Services that show an address of the range but are no longer of type `LoadBalancer`.
    pub withdraw: Vec<ServiceKey>,
    /// Services that get none, with the reason.
    pub unmet: BTreeMap<ServiceKey, String>,
}

/// Decides about every Service.
///
/// A Service keeps the address in its status, or in `remembered` where its status was written but not
/// seen again yet. Others get the `spec.loadBalancerIP` they ask for if it is free, else the lowest free
/// one, the oldest Service first. Services with a `loadBalancerClass` belong to other controllers.
#[must_use]
pub fn plan<S: Borrow<Service>>(
    services: &[S],
    range: AddressRange,
    remembered: &BTreeMap<ServiceKey, Ipv4Addr>,
) -> Plan {
    let mut services: Vec<&Service> = services.iter().map(Borrow::borrow).collect();
    services.sort_by_key(|service| {
        (
            service.creation_timestamp().map(|time| time.0),
            ServiceKey::of(service),
        )
    });
    let mut plan = Plan::default();
    let mut taken = BTreeMap::new();
    let mut waiting = Vec::new();
    for service in services {
        let key = ServiceKey::of(service);
        let shown = shown_address(service, range);
        let spec = service.spec.as_ref();
        if !spec.is_some_and(is_ours) {
            if shown.is_some() && !spec.is_some_and(is_load_balancer) {
                plan.withdraw.push(key);
            }
            continue;
        }
        let asked = spec.and_then(asked_address);
        let held = shown.or_else(|| remembered.get(&key).copied());
        match held.filter(|held| asked.is_none_or(|asked| asked == *held)) {
            Some(held) if !taken.contains_key(&held) => {
                taken.insert(held, key.clone());
                if shown != Some(held) {
                    plan.announce.push(key);
                }
            }
            _ => waiting.push((key, asked)),
        }
    }
    // Explicit wishes first, so that no automatic choice takes an address that was asked for.
    waiting.sort_by_key(|(_, asked)| asked.is_none());
    for (key, asked) in waiting {
        match choose(asked, range, &taken) {
            Ok(address) => {
                taken.insert(address, key.clone());
                plan.announce.push(key);
            }
            Err(reason) => {
                plan.unmet.insert(key, reason);
            }
        }
    }
    plan.addresses = taken
        .into_iter()
        .map(|(address, key)| (key, address))
        .collect();
    plan
}

fn choose(
    asked: Option<Ipv4Addr>,
    range: AddressRange,
    taken: &BTreeMap<Ipv4Addr, ServiceKey>,
) -> Result<Ipv4Addr, String> {
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

fn is_ours(spec: &ServiceSpec) -> bool {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    is_load_balancer(spec)
        && spec.load_balancer_class.is_none()
        && (families.is_empty() || families.iter().any(|family| family == "IPv4"))
}

fn asked_address(spec: &ServiceSpec) -> Option<Ipv4Addr> {
    spec.load_balancer_ip
        .as_deref()
        .and_then(|address| address.parse().ok())
}

fn shown_address(service: &Service, range: AddressRange) -> Option<Ipv4Addr> {
    let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
    let ingress = balancer.ingress.iter().flatten();
    ingress
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .find(|address| range.contains(*address))
}

#[cfg(test)]
mod tests;
