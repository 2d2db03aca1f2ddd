//! What a node's certificates say. Whether they are to be believed is checked before.

use std::fmt;
use std::net::IpAddr;

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};

/// Before a node's name in its common name: `kubelet`'s client and serving certificates.
const USER_PREFIX: &str = "system:node:";
/// Organization of both.
const GROUP: &str = "system:nodes";

/// Why a certificate is not a node's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It is somebody else's.
    #[error("the certificate is not of the form O={GROUP}, CN={USER_PREFIX}NAME")]
    NotANode,
}

/// Name of a Node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What a kubelet's serving certificate attests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Whose.
    pub node: NodeName,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its names, in small letters.
    pub names: Vec<String>,
    /// When it began to hold, seconds since 1970.
    pub since: i64,
}

/// The node that a certificate names.
///
/// # Errors
/// It is no node's.
pub fn node(der: &[u8]) -> Result<NodeName, Error> {
    named(&parse(der)?)
}

/// What a kubelet's serving certificate says.
///
/// # Errors
/// It is no node's.
pub fn served(der: &[u8]) -> Result<Served, Error> {
    let certificate = parse(der)?;
    let mut served = Served {
        node: named(&certificate)?,
        addresses: Vec::new(),
        names: Vec::new(),
        since: certificate.validity().not_before.timestamp(),
    };
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|_| Error::Unreadable)?;
    for name in alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => served.names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                served
                    .addresses
                    .push(address(bytes).ok_or(Error::Unreadable)?);
            }
            _ => {}
        }
    }
    Ok(served)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Unreadable),
    }
}

/// Exactly one common name and one organization: of two, different readers take different ones.
fn named(certificate: &X509Certificate<'_>) -> Result<NodeName, Error> {
    let subject = certificate.subject();
    if only(subject, X509Name::iter_organization) != Some(GROUP) {
        return Err(Error::NotANode);
    }
    only(subject, X509Name::iter_common_name)
        .and_then(|name| name.strip_prefix(USER_PREFIX))
        .filter(|name| !name.is_empty())
        .map(|name| NodeName(name.to_owned()))
        .ok_or(Error::NotANode)
}

fn only<'a, I>(subject: &'a X509Name<'a>, values: fn(&'a X509Name<'a>) -> I) -> Option<&'a str>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    let mut values = values(subject);
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().ok(),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use stoker_pki::{Authority, LeafRequest, LeafUsage};
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn certificate(common_name: &str, organizations: &[&str]) -> CertificateDer<'static> {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate("kubernetes", Duration::days(2), now).unwrap();
        let request = LeafRequest {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&name| name.to_owned()).collect(),
            usage: LeafUsage::Server,
            dns_names: vec!["Worker-1.example.com".to_owned()],
            ip_addresses: vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()],
            lifetime: Duration::days(1),
        };
        let leaf = authority.issue(&request, now).unwrap();
        CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn a_node_is_its_common_name_in_the_group_of_nodes() {
        let der = certificate("system:node:worker-1", &["system:nodes"]);
        assert_eq!(node(&der).unwrap().to_string(), "worker-1");
        let served = served(&der).unwrap();
        assert_eq!(served.names, ["worker-1.example.com"]);
        let addresses: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()];
        assert_eq!(served.addresses, addresses);
    }

    #[test]
    fn nobody_else_is_a_node() {
        for (common_name, organizations) in [
            ("kubernetes-admin", &["system:masters"][..]),
            ("kubernetes-admin", &["system:nodes"]),
            ("system:node:", &["system:nodes"]),
            ("system:node:worker-1", &[]),
            ("system:node:worker-1", &["system:masters"]),
            ("system:node:worker-1", &["system:nodes", "system:masters"]),
        ] {
            let der = certificate(common_name, organizations);
            assert_eq!(
                node(&der),
                Err(Error::NotANode),
                "{common_name} {organizations:?}"
            );
        }
        assert_eq!(node(b"nothing"), Err(Error::Unreadable));
    }
}
