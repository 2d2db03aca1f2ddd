//! The addresses that the tenant's own pods dial, where a load balancer publishes only a name.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::try_join_all;
use ipnet::IpNet;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Endpoints, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use stoker_api::tenant::Tenant;
use stoker_control_plane::{Exposure, Host};
use stoker_kube::ObjectKey;
use stoker_tenant::{Access, NODE_LISTENER_NAME, TUNNEL_AGENT_NAME, TenantObjects};
use tokio::time::timeout;

use super::error::Error;

/// For names that a load balancer published, looked up side by side. A DNS server that never answers must not hold up what
/// else a pass keeps.
const LIMIT: Duration = Duration::from_secs(3);

pub(super) fn is_name(host: &Host) -> bool {
    matches!(host, Host::Name(_))
}

/// The IP family in which the tenant's Service `kubernetes` needs an endpoint, where nothing that is dialed can be one.
/// What a name leads to is not known here.
pub(super) fn missing_family(service_cidrs: &[IpNet], direct: &[Host]) -> Option<&'static str> {
    let is_ipv6 = service_cidrs.first()?.addr().is_ipv6();
    let fits = |host: &Host| match host {
        Host::Address(address) => address.is_ipv6() == is_ipv6,
        Host::Name(_) => true,
    };
    let family = if is_ipv6 { "IPv6" } else { "IPv4" };
    (!direct.iter().any(fits)).then_some(family)
}

/// All addresses, those behind names by a look into DNS, within [`LIMIT`].
///
/// # Errors
/// A name has no address, or nobody answers.
pub(super) async fn resolve(exposure: &Exposure) -> Result<Vec<IpAddr>, Error> {
    let look = async |name: String| {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    };
    resolve_by(&exposure.direct, look).await
}

/// The same, of these hosts and by another way to look.
async fn resolve_by(
    hosts: &[Host],
    look: impl AsyncFn(String) -> io::Result<Vec<IpAddr>>,
) -> Result<Vec<IpAddr>, Error> {
    let look = &look;
    let all = hosts.iter().map(|host| async move {
        let name = match host {
            Host::Address(ip) => return Ok(vec![*ip]),
            Host::Name(name) => name,
        };
        let found = match timeout(LIMIT, look(name.clone())).await {
            Ok(found) => found,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {LIMIT:?}"),
            )),
        };
        // DNS servers answer in turns.
        let found = found.map(|mut found| {
            found.sort_unstable();
            found
        });
        found.map_err(|source| Error::Resolve {
            endpoint: name.clone(),
            source,
        })
    });
    Ok(try_join_all(all).await?.concat())
}

/// What stays inside the tenant as it is while it is not known how it would have to be: pods and nodes go on with it.
pub(super) fn left_alone(
    objects: &TenantObjects,
    tenant: &Tenant,
    access: &Access,
) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    if objects.endpoints.is_empty() {
        keys.extend(endpoints_keys());
    }
    let listeners = access.listeners.as_ref();
    if listeners.is_some_and(|listeners| listeners.servers.is_empty()) {
        keys.push(in_kube_system::<DaemonSet>(NODE_LISTENER_NAME));
    }
    if tenant.addons.konnectivity.is_some() && access.tunnel.is_none() {
        keys.extend([
            in_kube_system::<ServiceAccount>(TUNNEL_AGENT_NAME),
            in_kube_system::<DaemonSet>(TUNNEL_AGENT_NAME),
            in_kube_system::<Deployment>(TUNNEL_AGENT_NAME),
        ]);
    }
    keys
}

fn in_kube_system<K: Resource<DynamicType = ()>>(name: &str) -> ObjectKey {
    ObjectKey::of::<K>(Some("kube-system"), name)
}

/// What the tenant's pods find its API server by.
fn endpoints_keys() -> [ObjectKey; 4] {
    let slice = |name| ObjectKey::of::<EndpointSlice>(Some("default"), name);
    [
        ObjectKey::of::<Endpoints>(Some("default"), "kubernetes"),
        slice("kubernetes"),
        slice("kubernetes-ipv4"),
        slice("kubernetes-ipv6"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stoker_api::v1alpha1::TenantControlPlane;
    use stoker_tenant::{NodeListeners, TunnelAgents};
    use tokio::time::Instant;

    use super::*;

    fn name(name: &str) -> Host {
        Host::Name(name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_waited_for_three_seconds_however_many_names_there_are()
    {
        let begun = Instant::now();
        let silent = async |_name| std::future::pending().await;
        let hosts = [name("a.example"), name("b.example"), name("c.example")];
        let error = resolve_by(&hosts, silent).await.unwrap_err();
        assert_eq!(begun.elapsed(), LIMIT);
        assert_eq!(error.category(), "EndpointUnresolved");
        assert!(
            error.describe().contains("no answer within 3s"),
            "{}",
            error.describe()
        );
    }

    #[test]
    fn a_tenant_whose_first_family_is_ipv6_waits_for_such_an_address() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let (six, four) = (net("fd00::/112"), net("10.96.0.0/16"));
        let host = |text: &str| Host::Address(text.parse().unwrap());
        let published = [host("192.0.2.1")];
        assert_eq!(missing_family(&[six, four], &published), Some("IPv6"));
        assert_eq!(missing_family(&[four, six], &published), None);
        assert_eq!(missing_family(&[four], &[]), Some("IPv4"));
        let both = [host("192.0.2.1"), host("2001:db8::1")];
        assert_eq!(missing_family(&[six, four], &both), None);
        assert_eq!(missing_family(&[six], &[name("a.example")]), None);
    }

    #[tokio::test]
    async fn addresses_keep_the_order_of_their_hosts() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let look = async |name: String| {
            assert_eq!(name, "a.example");
            Ok(vec![
                "192.0.2.1".parse().unwrap(),
                "192.0.2.2".parse().unwrap(),
            ])
        };
        let hosts = [Host::Address(ip("192.0.2.9")), name("a.example")];
        let found = resolve_by(&hosts, look).await.unwrap();
        assert_eq!(found, ["192.0.2.9", "192.0.2.1", "192.0.2.2"].map(ip));
    }

    fn tenant(konnectivity: bool) -> Tenant {
        let addons = if konnectivity {
            json!({ "konnectivity": {} })
        } else {
            json!({})
        };
        let object: TenantControlPlane = serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": { "name": "one", "namespace": "a", "uid": "u" },
            "spec": {
                "controlPlane": { "service": { "serviceType": "LoadBalancer" } },
                "kubernetes": { "version": "v1.36.3", "kubelet": {} },
                "addons": addons,
            },
        }))
        .unwrap();
        Tenant::validate(&object).unwrap()
    }

    fn access(listeners: Option<&[&str]>, tunnel: Option<&str>) -> Access {
        Access {
            host: "one.example".to_owned(),
            port: 443,
            addresses: Vec::new(),
            direct_port: 6443,
            listeners: listeners.map(|servers| NodeListeners {
                servers: servers.iter().map(|server| (*server).to_owned()).collect(),
                name: None,
                image: "image".to_owned(),
            }),
            tunnel: tunnel.map(|server| TunnelAgents {
                server: server.to_owned(),
                image: "image".to_owned(),
            }),
            certificate_authority: String::new(),
        }
    }

    #[test]
    fn listeners_stay_while_it_is_not_known_what_they_lead_to_and_go_when_nobody_asks_for_them() {
        let listener = in_kube_system::<DaemonSet>("stoker-node-listener");
        let left = |listeners: Option<&[&str]>| {
            let access = access(listeners, None);
            left_alone(&TenantObjects::default(), &tenant(false), &access).contains(&listener)
        };
        assert!(left(Some(&[])));
        assert!(!left(Some(&["192.0.2.1:6443"])));
        assert!(!left(None));
    }

    #[test]
    fn the_tunnels_agents_stay_while_it_is_not_known_what_they_dial() {
        let left = |asked: bool, tunnel: Option<&str>| -> Vec<String> {
            let access = access(None, tunnel);
            let keys = left_alone(&TenantObjects::default(), &tenant(asked), &access);
            let agents = keys.iter().map(ToString::to_string);
            agents
                .filter(|key| key.contains("konnectivity-agent"))
                .collect()
        };
        assert_eq!(left(true, None).len(), 3, "{:?}", left(true, None));
        assert_eq!(left(true, Some("192.0.2.1:8132")), [""; 0]);
        assert_eq!(left(false, None), [""; 0], "nobody asks for them");
    }
}
