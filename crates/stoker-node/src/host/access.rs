//! Clients of the tenant's API server: by nobody, by the token, by the node.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::Uri;
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::paths::CERTIFICATE;

/// A person waits, or a service looks again.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who asks.
pub(crate) enum Who<'a> {
    /// Nobody.
    Nobody,
    /// Whoever has this token.
    Bearer(String),
    /// The node, by the certificate and key in this file.
    Node(&'a str),
}

impl Who<'static> {
    /// This node.
    pub(crate) fn this_node() -> Self {
        Self::Node(CERTIFICATE)
    }
}

/// A client towards `server` (`host:port`), which must have a certificate of one of `authorities` (PEM); without them, any.
pub(crate) fn client(server: &str, authorities: Option<&str>, who: &Who<'_>) -> Result<Client> {
    let url: Uri = format!("https://{server}")
        .parse()
        .with_context(|| format!("{server:?} is not host:port"))?;
    let mut config = Config::new(url);
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    config.default_retry = false;
    match authorities {
        None => config.accept_invalid_certs = true,
        Some(text) => {
            let found = CertificateDer::pem_slice_iter(text.as_bytes());
            let found: Result<Vec<_>, _> = found.map(|one| one.map(|one| one.to_vec())).collect();
            config.root_cert = Some(found.context("reading the tenant's authorities")?);
        }
    }
    match who {
        Who::Nobody => {}
        Who::Bearer(token) => config.auth_info.token = Some(token.clone().into()),
        Who::Node(path) => {
            config.auth_info.client_certificate = Some((*path).to_owned());
            config.auth_info.client_key = Some((*path).to_owned());
        }
    }
    Client::try_from(config).context("making a client")
}
