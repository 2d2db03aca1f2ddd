//! A bare TLS handshake, to learn why a member closes connections.
//!
//! In TLS 1.3 a server refuses a client certificate after the client's handshake is done; the alert
//! that says so is then lost in the HTTP/2 layer, which only sees the connection close.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pool::PoolConfig;

/// How long a server is given to refuse. One that accepts says nothing until it is asked something.
const PATIENCE: Duration = Duration::from_secs(2);

/// The identities of both sides, ready for a handshake.
pub(crate) struct Handshake {
    config: Arc<ClientConfig>,
}

impl Handshake {
    /// Reads the PEM of the configuration.
    pub(crate) fn new(config: &PoolConfig) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(config.certificate_authority.as_bytes()) {
            roots.add(authority?)?;
        }
        if roots.is_empty() {
            return Err("the CA has no certificate".into());
        }
        let chain = CertificateDer::pem_slice_iter(config.client_certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(config.client_key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Shakes hands with `endpoint` and returns what it answers if that is a failure.
    pub(crate) async fn failure(&self, endpoint: &str) -> Option<io::Error> {
        let attempt = tokio::time::timeout(PATIENCE, self.attempt(endpoint)).await;
        attempt.ok()?.err()
    }

    async fn attempt(&self, endpoint: &str) -> io::Result<()> {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TcpStream::connect(endpoint).await?;
        let mut tls = TlsConnector::from(self.config.clone())
            .connect(name, stream)
            .await?;
        // HTTP/2 servers speak first: settings, or the alert.
        tls.read_u8().await.map(drop)
    }
}
