//! Certificates and kubeconfigs of the lab's own clusters: `stoker-pki` with the lab's names and lifetimes.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use stoker_pki::{
    Authority, KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, LeafRequest, LeafUsage,
    ServiceAccountKey, kubeconfig,
};
use time::{Duration, OffsetDateTime};

/// A lab lives for days; a year is far enough.
const LIFETIME: Duration = Duration::days(365);

/// A certificate authority of the lab.
///
/// # Errors
/// When no key can be made.
pub fn authority(common_name: &str) -> Result<Authority> {
    Authority::generate(common_name, LIFETIME * 2, OffsetDateTime::now_utc())
        .with_context(|| format!("making the authority {common_name}"))
}

/// A certificate for a client, with its user name and group.
///
/// # Errors
/// When no key can be made.
pub fn client(authority: &Authority, user: &str, group: Option<&str>) -> Result<KeyedCertificate> {
    let request = LeafRequest {
        common_name: user.to_owned(),
        organizations: group.map(str::to_owned).into_iter().collect(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: LIFETIME,
    };
    authority
        .issue(&request, OffsetDateTime::now_utc())
        .with_context(|| format!("issuing the client certificate of {user}"))
}

/// A certificate for a server; also good as a client's, as etcd's own gateway needs.
///
/// # Errors
/// When no key can be made or a name is not a DNS name.
pub fn server(
    authority: &Authority,
    common_name: &str,
    dns_names: &[&str],
    ip_addresses: &[IpAddr],
) -> Result<KeyedCertificate> {
    let request = LeafRequest {
        common_name: common_name.to_owned(),
        organizations: Vec::new(),
        usage: LeafUsage::ServerAndClient,
        dns_names: dns_names.iter().map(|&name| name.to_owned()).collect(),
        ip_addresses: ip_addresses.to_vec(),
        lifetime: LIFETIME,
    };
    authority
        .issue(&request, OffsetDateTime::now_utc())
        .with_context(|| format!("issuing the serving certificate of {common_name}"))
}

/// A kubeconfig with the client's certificate in it.
#[must_use]
pub fn kubeconfig_text(
    cluster: &str,
    server: &str,
    authority: &Authority,
    user: &str,
    leaf: KeyedCertificate,
) -> String {
    kubeconfig(&KubeconfigRequest {
        cluster: cluster.to_owned(),
        server: server.to_owned(),
        tls_server_name: None,
        authority: authority.certificate().to_owned(),
        user: user.to_owned(),
        credentials: KubeconfigCredentials::Inline(leaf),
    })
}

/// A client for a kubeconfig, without the retries that would hide a server that is not up yet.
///
/// # Errors
/// When the kubeconfig cannot be read.
pub async fn kube_client(kubeconfig: &str) -> Result<kube::Client> {
    client_of(Kubeconfig::from_yaml(kubeconfig).context("reading a kubeconfig")?).await
}

pub(crate) async fn client_of(kubeconfig: Kubeconfig) -> Result<kube::Client> {
    // Another part of the process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    config.connect_timeout = Some(std::time::Duration::from_secs(2));
    kube::Client::try_from(config).context("making a Kubernetes client")
}

/// Writes `<name>.crt` and `<name>.key`, the key readable by its owner only.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_leaf(directory: &Path, name: &str, leaf: &KeyedCertificate) -> Result<()> {
    write_public(&directory.join(format!("{name}.crt")), &leaf.certificate)?;
    write_private(&directory.join(format!("{name}.key")), leaf.key.as_pem())
}

/// Writes `<name>.crt` and `<name>.key` of an authority.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_authority(directory: &Path, name: &str, authority: &Authority) -> Result<()> {
    write_public(
        &directory.join(format!("{name}.crt")),
        authority.certificate(),
    )?;
    write_private(
        &directory.join(format!("{name}.key")),
        authority.key().as_pem(),
    )
}

/// Reads what [`write_authority`] wrote.
///
/// # Errors
/// When the files are missing or do not fit together.
pub fn read_authority(directory: &Path, name: &str) -> Result<Authority> {
    let read = |ending: &str| {
        let path = directory.join(format!("{name}.{ending}"));
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    Authority::from_pem(&read("crt")?, &read("key")?)
        .with_context(|| format!("reading the authority {name}"))
}

/// Writes `sa.key` and `sa.pub`.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_service_account_key(directory: &Path, key: &ServiceAccountKey) -> Result<()> {
    write_public(&directory.join("sa.pub"), key.public_pem())?;
    write_private(&directory.join("sa.key"), key.private_pem().as_pem())
}

/// Writes a file that only its owner reads.
///
/// # Errors
/// When the file cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}

fn write_public(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
