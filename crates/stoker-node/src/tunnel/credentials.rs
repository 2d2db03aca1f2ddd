//! What the node shows to wardens, and whom it believes: the files of its kubelet, which renews them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use stoker_tunnel::wire::ALPN;

/// Where certificates are.
#[derive(Clone, Debug)]
pub struct Files {
    /// Authorities of the tenant, PEM.
    pub server_ca: PathBuf,
    /// The node's client certificate and its key, PEM.
    pub client_certificate: PathBuf,
    /// The kubelet's serving certificate, PEM; may be missing.
    pub node_certificate: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file holds something else.
    #[error("{0} lacks a certificate or key")]
    Pem(PathBuf, #[source] pem::Error),
    /// TLS does not take them.
    #[error("not accepted")]
    Tls(#[from] rustls::Error),
}

/// One state of the files.
#[derive(Debug)]
pub(super) struct Credentials {
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    /// The kubelet's serving certificate; empty while there is none.
    pub(super) node: Vec<u8>,
    pub(super) tls: Arc<ClientConfig>,
}

impl Files {
    /// What the files say, if it is not what they said before.
    pub(super) fn read(&self, before: Option<&Credentials>) -> Result<Option<Credentials>, Error> {
        let authorities = certificates(&self.server_ca)?;
        let chain = certificates(&self.client_certificate)?;
        let node = match certificates(&self.node_certificate) {
            Ok(chain) => chain.first().map(|leaf| leaf.to_vec()),
            Err(Error::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let node = node.unwrap_or_default();
        if before.is_some_and(|old| {
            old.authorities == authorities && old.chain == chain && old.node == node
        }) {
            return Ok(None);
        }
        let key = PrivateKeyDer::from_pem_file(&self.client_certificate)
            .map_err(|error| Error::Pem(self.client_certificate.clone(), error))?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone())?;
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Some(Credentials {
            authorities,
            chain,
            node,
            tls: Arc::new(tls),
        }))
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = std::fs::read(path).map_err(|error| Error::Read(path.clone(), error))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Pem(path.clone(), pem::Error::NoItemsFound)),
        Err(error) => Err(Error::Pem(path.clone(), error)),
    }
}
