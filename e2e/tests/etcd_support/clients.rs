//! Certificates and connections for tests that speak etcd's protocol themselves.

use anyhow::{Context as _, Result};
use etcd_client::{Certificate, Client, Identity, TlsOptions};
use std::time::Duration;
use stoker_etcd::{Owner, PoolConfig};
use stoker_lab::credentials;
use stoker_pki::{Authority, KeyedCertificate};
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

/// A channel to `address` (host:port), with a client certificate or none.
pub(crate) fn channel(
    address: &str,
    authority: &Authority,
    leaf: Option<&KeyedCertificate>,
) -> Result<Channel> {
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(authority.certificate()));
    if let Some(leaf) = leaf {
        tls = tls.identity(Identity::from_pem(&leaf.certificate, leaf.key.as_pem()));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(5));
    Ok(endpoint.connect_lazy())
}

/// An etcd client to `address`, with a client certificate or none.
pub(crate) async fn client(
    address: &str,
    authority: &Authority,
    leaf: Option<&KeyedCertificate>,
) -> Result<Client> {
    let raw = etcd_client::Channel::Tonic(channel(address, authority, leaf)?);
    Client::from_channel(raw, None)
        .await
        .context("making an etcd client")
}

/// How a pool at `addresses` is reached with `leaf`.
pub(crate) fn pool_config(
    addresses: &[String],
    authority: &Authority,
    leaf: &KeyedCertificate,
) -> PoolConfig {
    PoolConfig {
        endpoints: addresses.to_vec(),
        certificate_authority: authority.certificate().to_owned(),
        client_certificate: leaf.certificate.clone(),
        client_key: Zeroizing::new(leaf.key.as_pem().to_owned()),
    }
}

/// The same as root.
pub(crate) fn root_config(addresses: &[String], authority: &Authority) -> Result<PoolConfig> {
    let root = credentials::client(authority, "root", None)?;
    Ok(pool_config(addresses, authority, &root))
}

/// A tenant's owner.
pub(crate) fn owner(name: &str) -> Owner {
    Owner {
        namespace: "tenants".into(),
        name: name.into(),
        uid: format!("uid-of-{name}"),
        management_cluster: None,
    }
}
