use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, SanType};
use rustls_pki_types::DnsName;
use time::Duration;

use crate::Error;

/// The shortest lifetime that may be asked for.
///
/// Below 2.5 minutes the third of the validity in which a leaf is renewed would begin before its
/// issue (it is backdated by 5 minutes); ten leave room for a reconcile.
pub const MINIMUM_LIFETIME: Duration = Duration::minutes(10);

/// What a leaf may be used for (`extendedKeyUsage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafUsage {
    /// To serve TLS.
    Server,
    /// To authenticate as a TLS client.
    Client,
    /// Both; etcd members need it.
    ServerAndClient,
}

impl LeafUsage {
    pub(crate) fn server(self) -> bool {
        matches!(self, Self::Server | Self::ServerAndClient)
    }

    pub(crate) fn client(self) -> bool {
        matches!(self, Self::Client | Self::ServerAndClient)
    }
}

/// A leaf certificate to be issued, or that an existing one is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRequest {
    /// For a client, the Kubernetes or etcd user name.
    pub common_name: String,
    /// For a client, its Kubernetes groups. Order and repetition do not matter.
    pub organizations: Vec<String>,
    /// What the leaf may be used for.
    pub usage: LeafUsage,
    /// DNS names it serves, a leading `*.` allowed. Order, case and repetition do not matter.
    pub dns_names: Vec<String>,
    /// Addresses it serves. Order and repetition do not matter.
    pub ip_addresses: Vec<IpAddr>,
    /// From issue to end, at least [`MINIMUM_LIFETIME`]; shortened to the authority's end.
    pub lifetime: Duration,
}

impl LeafRequest {
    /// Lower-case, sorted, each once.
    pub(crate) fn dns_set(&self) -> BTreeSet<String> {
        self.dns_names
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect()
    }

    /// Sorted, each once.
    pub(crate) fn ip_set(&self) -> BTreeSet<IpAddr> {
        self.ip_addresses.iter().copied().collect()
    }

    /// Sorted, each once.
    pub(crate) fn organization_set(&self) -> BTreeSet<&str> {
        self.organizations.iter().map(String::as_str).collect()
    }

    /// Everything but validity and serial number.
    pub(crate) fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // rcgen keeps one value per attribute: of several, the rest is added by `crate::subject`.
        if let [organization] = self.organizations.as_slice() {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization.as_str());
        }
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        for name in self.dns_set() {
            params.subject_alt_names.push(dns_name(&name)?);
        }
        params
            .subject_alt_names
            .extend(self.ip_set().into_iter().map(SanType::IpAddress));
        if self.usage.server() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if self.usage.client() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        Ok(params)
    }
}

fn dns_name(name: &str) -> Result<SanType, Error> {
    let invalid = || Error::DnsName(name.to_owned());
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).map_err(|_| invalid())?;
    name.try_into().map(SanType::DnsName).map_err(|_| invalid())
}
