//! Certificates that are kept while they are good and issued anew when they are not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stoker_api::tenant::Tenant;
use stoker_pki::{
    Authority, KeyedCertificate, LeafRequest, LeafState, LeafUsage, PrivateKey, ReissueReason,
    first_certificate, leaf_state, parse_kubeconfig, renewal,
};
use time::{Duration, OffsetDateTime};

use crate::exposure::waking_name;
use crate::objects::{ExistingSecrets, SecretData};
use crate::{Exposure, Host, Keys, Names, entry};

/// Lifetime of a leaf: a year, as kubeadm's.
const LEAF_LIFETIME: Duration = Duration::days(365);

/// kubeadm's group of cluster administrators, bound to `cluster-admin` inside the tenant. Unlike
/// `system:masters`, it can be unbound.
const ADMINISTRATORS: &str = "kubeadm:cluster-admins";

/// A tenant's certificates.
#[derive(Clone, Debug)]
pub struct Leaves {
    /// The API server's serving certificate.
    pub serving: KeyedCertificate,
    /// The API server's client certificate towards kubelets.
    pub kubelet_client: KeyedCertificate,
    /// The API server's client certificate towards aggregated API servers.
    pub front_proxy_client: KeyedCertificate,
    /// People's client certificate: user `kubernetes-admin`, group `kubeadm:cluster-admins`.
    pub admin: KeyedCertificate,
    /// kube-controller-manager's client certificate.
    pub controller_manager: KeyedCertificate,
    /// kube-scheduler's client certificate.
    pub scheduler: KeyedCertificate,
    /// When to call [`leaves`] again if nothing else changes.
    pub renew_at: OffsetDateTime,
    /// Existing certificates that were replaced: name of the Secret and why.
    pub reissued: BTreeMap<String, ReissueReason>,
}

/// A tenant's certificates: an existing one is kept byte for byte while [`leaf_state`] finds it
/// valid, else a new one is issued.
///
/// The serving certificate follows `exposure`: it gains the endpoint's host when that becomes known.
///
/// # Errors
/// [`stoker_pki::Error::AuthorityExpired`]; [`stoker_pki::Error::DnsName`] for a name in
/// `networkProfile.certSANs` or of a load balancer; others when the machine has no randomness.
pub fn leaves(
    tenant: &Tenant,
    keys: &Keys,
    exposure: &Exposure,
    existing: &ExistingSecrets,
    now: OffsetDateTime,
) -> Result<Leaves, stoker_pki::Error> {
    let names = Names::of(tenant);
    let (cluster, front_proxy) = (&keys.certificate_authority, &keys.front_proxy_authority);
    let authority = cluster.signer();
    let mut issuer = Issuer {
        existing,
        now,
        renew_at: None,
        reissued: BTreeMap::new(),
    };
    let mut serving = issuer.leaf(
        &names.api_server_certificate,
        Place::Files(entry::API_SERVER_CERTIFICATE, entry::API_SERVER_KEY),
        &serving_request(tenant, exposure),
        authority,
    )?;
    let mut kubelet_client = issuer.leaf(
        &names.kubelet_client,
        Place::Files(entry::KUBELET_CLIENT_CERTIFICATE, entry::KUBELET_CLIENT_KEY),
        &client_request("kube-apiserver-kubelet-client", Some(ADMINISTRATORS)),
        authority,
    )?;
    let mut front_proxy_client = issuer.leaf(
        &names.front_proxy_client,
        Place::Files(
            entry::FRONT_PROXY_CLIENT_CERTIFICATE,
            entry::FRONT_PROXY_CLIENT_KEY,
        ),
        &client_request("front-proxy-client", None),
        front_proxy.signer(),
    )?;
    // To nodes and pods, which may know the authority before this one alone.
    for (leaf, authority) in [
        (&mut serving, cluster),
        (&mut kubelet_client, cluster),
        (&mut front_proxy_client, front_proxy),
    ] {
        leaf.certificate = authority.linked(&leaf.certificate, now);
        if let Some(end) = authority.links_end(now) {
            issuer.look_again(end);
        }
    }
    let admin = issuer.leaf(
        &names.admin_kubeconfig,
        Place::Kubeconfig(entry::ADMIN_SERVICE),
        &client_request("kubernetes-admin", Some(ADMINISTRATORS)),
        authority,
    )?;
    let controller_manager = issuer.leaf(
        &names.controller_manager_kubeconfig,
        Place::Files(
            entry::CONTROLLER_MANAGER_CERTIFICATE,
            entry::CONTROLLER_MANAGER_KEY,
        ),
        &client_request("system:kube-controller-manager", None),
        authority,
    )?;
    let scheduler = issuer.leaf(
        &names.scheduler_kubeconfig,
        Place::Files(entry::SCHEDULER_CERTIFICATE, entry::SCHEDULER_KEY),
        &client_request("system:kube-scheduler", None),
        authority,
    )?;
    Ok(Leaves {
        serving,
        kubelet_client,
        front_proxy_client,
        admin,
        controller_manager,
        scheduler,
        renew_at: issuer.renew_at.unwrap_or(now),
        reissued: issuer.reissued,
    })
}

/// Where in its Secret a leaf is.
#[derive(Clone, Copy)]
enum Place {
    /// Entries of the certificate and of its key.
    Files(&'static str, &'static str),
    /// Inline in the kubeconfig of that entry.
    Kubeconfig(&'static str),
}

impl Place {
    fn read(self, data: &SecretData) -> Option<KeyedCertificate> {
        let text = |name| std::str::from_utf8(data.get(name)?).ok();
        match self {
            Self::Files(certificate, key) => Some(KeyedCertificate {
                // Without what is sent after it.
                certificate: first_certificate(text(certificate)?).ok()?,
                key: PrivateKey::from_pem(text(key)?).ok()?,
            }),
            Self::Kubeconfig(name) => {
                let facts = parse_kubeconfig(text(name)?).ok()?;
                Some(KeyedCertificate {
                    certificate: facts.certificate,
                    key: facts.key,
                })
            }
        }
    }
}

struct Issuer<'a> {
    existing: &'a ExistingSecrets,
    now: OffsetDateTime,
    renew_at: Option<OffsetDateTime>,
    reissued: BTreeMap<String, ReissueReason>,
}

impl Issuer<'_> {
    fn leaf(
        &mut self,
        secret: &str,
        place: Place,
        request: &LeafRequest,
        authority: &Authority,
    ) -> Result<KeyedCertificate, stoker_pki::Error> {
        if let Some(data) = self.existing.get(secret) {
            let present = place.read(data);
            let state = present
                .as_ref()
                .map(|leaf| self.state(leaf, request, authority));
            match (present, state) {
                (Some(leaf), Some(LeafState::Valid { renew_at })) => {
                    self.look_again(renew_at);
                    return Ok(leaf);
                }
                (_, Some(LeafState::Reissue(reason))) => self.note(secret, reason),
                (None, _) | (_, None) => self.note(secret, ReissueReason::Unreadable),
            }
        }
        let leaf = authority.issue(request, self.now)?;
        self.look_again(renewal(&leaf.certificate, authority, self.now));
        Ok(leaf)
    }

    fn state(
        &self,
        leaf: &KeyedCertificate,
        request: &LeafRequest,
        authority: &Authority,
    ) -> LeafState {
        leaf_state(
            &leaf.certificate,
            leaf.key.as_pem(),
            request,
            authority,
            self.now,
        )
    }

    fn note(&mut self, secret: &str, reason: ReissueReason) {
        self.reissued.insert(secret.to_owned(), reason);
    }

    fn look_again(&mut self, at: OffsetDateTime) {
        self.renew_at = Some(self.renew_at.map_or(at, |known| known.min(at)));
    }
}

fn client_request(common_name: &str, organization: Option<&str>) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organizations: organization.map(str::to_owned).into_iter().collect(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: LEAF_LIFETIME,
    }
}

/// Every name and address by which the API server is dialed: from inside the tenant, by the
/// tenant's kube-controller-manager and kube-scheduler in the same pod, from the management
/// cluster, and by nodes and people.
#[must_use]
pub fn serving_names(tenant: &Tenant, exposure: &Exposure) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let Tenant {
        name,
        namespace,
        network,
        ..
    } = tenant;
    let mut dns_names: BTreeSet<String> = [
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{}", network.cluster_domain),
        "localhost".to_owned(),
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ]
    .into();
    let mut ip_addresses: BTreeSet<IpAddr> =
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into();
    ip_addresses.extend(network.kubernetes_service_ips());
    ip_addresses.extend(&exposure.cluster_ips);
    ip_addresses.extend(network.address);
    ip_addresses.extend(network.advertise_address);
    dns_names.extend(exposure.stable_name.clone());
    dns_names.extend(waking_name(exposure));
    let endpoint = exposure.endpoint.iter().map(|endpoint| &endpoint.host);
    let asked = network.cert_sans.iter().map(|name| match name.parse() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(name.clone()),
    });
    for host in endpoint.chain(&exposure.direct).cloned().chain(asked) {
        match host {
            Host::Address(address) => ip_addresses.insert(address),
            Host::Name(name) => dns_names.insert(name),
        };
    }
    (dns_names, ip_addresses)
}

fn serving_request(tenant: &Tenant, exposure: &Exposure) -> LeafRequest {
    let (dns_names, ip_addresses) = serving_names(tenant, exposure);
    LeafRequest {
        common_name: "kube-apiserver".to_owned(),
        organizations: Vec::new(),
        usage: LeafUsage::Server,
        dns_names: dns_names.into_iter().collect(),
        ip_addresses: ip_addresses.into_iter().collect(),
        lifetime: LEAF_LIFETIME,
    }
}
