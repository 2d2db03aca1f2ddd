//! What the near end shows to agents, and whom it believes. Mounted files, read again when somebody asks
//! and a second has passed: a kubelet replaces them when the operator has.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use stoker_tunnel::identity::{self, NodeName, Served};
use stoker_tunnel::wire::ALPN;

/// Between two looks at the files.
const AGE: Duration = Duration::from_secs(1);

/// Where certificates are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate shown to agents, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The tenant's authorities, PEM.
    pub client_ca: PathBuf,
}

/// Why certificates cannot be used, or an agent is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// A file holds something else.
    #[error("no PEM of the kind expected")]
    Pem(#[source] pem::Error),
    /// TLS does not take it.
    #[error("not accepted")]
    Tls(#[from] rustls::Error),
    /// There is no authority.
    #[error("no authority")]
    Verifier(#[source] VerifierBuilderError),
    /// It is not a node's.
    #[error("not a node's certificate")]
    Identity(#[from] identity::Error),
    /// It attests what belongs to somebody else.
    #[error("the serving certificate is node {0}'s")]
    AnotherNode(NodeName),
}

/// The files, and what they said last.
#[derive(Debug)]
pub(super) struct Credentials {
    files: Files,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    looked: Instant,
    content: Content,
    trust: Arc<Trust>,
}

#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// Never shows the key.
impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Content").finish_non_exhaustive()
    }
}

/// One state of the files.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) tls: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl Credentials {
    pub(super) fn read(files: Files) -> Result<Self, Error> {
        let content = files.content()?;
        let current = Current {
            looked: Instant::now(),
            trust: Arc::new(Trust::new(&content)?),
            content,
        };
        Ok(Self {
            files,
            current: Mutex::new(current),
        })
    }

    /// What holds now. Files that cannot be used change nothing: they are being replaced.
    pub(super) fn current(&self) -> Arc<Trust> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= AGE {
            current.looked = Instant::now();
            if let Ok(content) = self.files.content()
                && content != current.content
                && let Ok(trust) = Trust::new(&content)
            {
                current.content = content;
                current.trust = Arc::new(trust);
            }
        }
        current.trust.clone()
    }
}

impl Files {
    fn content(&self) -> Result<Content, Error> {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| Error::Read(path.clone(), error));
        Ok(Content {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: read(&self.client_ca)?,
        })
    }
}

impl Trust {
    fn new(content: &Content) -> Result<Self, Error> {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&content.client_ca)? {
            roots.add(authority)?;
        }
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone())
                .build()
                .map_err(Error::Verifier)?;
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(Error::Pem)?;
        let mut tls = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(certificates(&content.certificate)?, key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would carry an identity over a change of authorities.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Self {
            tls: Arc::new(tls),
            clients,
            roots,
            provider,
        })
    }

    /// The node that a verified chain names.
    pub(super) fn node(chain: &[CertificateDer<'_>]) -> Result<NodeName, Error> {
        let leaf = chain.first().ok_or(identity::Error::Unreadable)?;
        Ok(identity::node(leaf)?)
    }

    /// Whether a chain that was believed once still is.
    pub(super) fn still_holds(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (leaf, others) = chain.split_first().ok_or(identity::Error::Unreadable)?;
        self.clients
            .verify_client_cert(leaf, others, UnixTime::now())?;
        Ok(())
    }

    /// What a kubelet's serving certificate attests of the node that handed it over.
    pub(super) fn served(&self, der: &[u8], node: &NodeName) -> Result<Served, Error> {
        let certificate = CertificateDer::from(der);
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(&certificate)?,
            &self.roots,
            &[],
            UnixTime::now(),
            self.provider.signature_verification_algorithms.all,
        )?;
        let served = identity::served(der)?;
        if served.node == *node {
            Ok(served)
        } else {
            Err(Error::AnotherNode(served.node))
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(Error::Pem)
}
