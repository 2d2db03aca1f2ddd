//! What lets a machine into a tenant's cluster: the string that is typed on it, and the certificate request of its
//! kubelet.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use crate::key::{PrivateKey, read_key};
use crate::{Error, certificate};

/// Before everything else in the string: another form gets another one.
const FORM: &str = "stoker1.";
/// Of a token's parts (`k8s.io/cluster-bootstrap/token/api`): `[a-z0-9]{6}.[a-z0-9]{16}`.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const LENGTHS: (usize, usize) = (6, 16);
/// Nobody types more; a text from elsewhere is not decoded without end.
const LONGEST: usize = 4096;

/// A bootstrap token: `id.secret`.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

impl BootstrapToken {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<Self, Error> {
        Ok(Self {
            id: random(LENGTHS.0)?,
            secret: random(LENGTHS.1)?,
        })
    }

    /// Reads `id.secret`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let plain = |part: &str| part.bytes().all(|byte| LETTERS.contains(&byte));
        let fits = (id.len(), secret.len()) == LENGTHS && plain(id) && plain(secret);
        fits.then(|| Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }

    /// The public half, which names the token.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The other half.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// `id.secret`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({}.[redacted])", self.id)
    }
}

/// Everything that a machine needs to know of a tenant to join it, in one string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinCredential {
    /// `host:port` of the API server.
    pub server: String,
    /// Pins of the tenant's authorities, as [`ca_hash`](crate::ca_hash) makes them; one is enough.
    pub ca_hashes: Vec<String>,
    /// What it asks with.
    pub token: BootstrapToken,
}

#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(rename = "s")]
    server: String,
    #[serde(rename = "h")]
    ca_hashes: Vec<String>,
    #[serde(rename = "t")]
    token: String,
}

impl JoinCredential {
    /// The string.
    ///
    /// # Errors
    /// [`Error::JoinString`]: never, in practice.
    pub fn encode(&self) -> Result<String, Error> {
        let written = Written {
            server: self.server.clone(),
            ca_hashes: self.ca_hashes.clone(),
            token: self.token.text(),
        };
        let text = serde_json::to_vec(&written).map_err(|_| Error::JoinString)?;
        Ok(format!("{FORM}{}", URL_SAFE_NO_PAD.encode(text)))
    }

    /// Reads the string.
    ///
    /// # Errors
    /// [`Error::JoinString`] when it is none, or not whole.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let body = text.trim().strip_prefix(FORM);
        let body = body
            .filter(|body| body.len() <= LONGEST)
            .ok_or(Error::JoinString)?;
        let body = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| Error::JoinString)?;
        let written: Written = serde_json::from_slice(&body).map_err(|_| Error::JoinString)?;
        let token = BootstrapToken::parse(&written.token).ok_or(Error::JoinString)?;
        if written.server.is_empty() || written.ca_hashes.is_empty() {
            return Err(Error::JoinString);
        }
        Ok(Self {
            server: written.server,
            ca_hashes: written.ca_hashes,
            token,
        })
    }

    /// Of the authorities in `bundle` (PEM) those that the string pins; empty where it pins none. The others are worth nothing
    /// until a server that these vouch for has named them: while an authority is replaced there are two, and the string may be
    /// older than one of them (kubeadm `pubkeypin.Set.CheckAny`).
    #[must_use]
    pub fn pinned(&self, bundle: &str) -> String {
        certificate::pinned(bundle, &self.ca_hashes).unwrap_or_default()
    }
}

/// A kubelet's request for its client certificate, with a key made for it.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// The key, which never leaves the machine.
    pub key: PrivateKey,
    /// PEM of the PKCS #10 request.
    pub request: String,
}

impl NodeRequest {
    /// For the node `name`, with a new key or the one that an earlier attempt made.
    ///
    /// # Errors
    /// [`Error::Sign`], and what reading a key says.
    pub fn new(name: &str, key: Option<&str>) -> Result<Self, Error> {
        let (key, pair) = if let Some(pem) = key {
            read_key(pem)?
        } else {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Sign)?;
            (PrivateKey::from_pair(&pair), pair)
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, "system:nodes");
        subject.push(DnType::CommonName, format!("system:node:{name}"));
        let request = params.serialize_request(&pair).map_err(Error::Sign)?;
        let request = request.pem().map_err(Error::Sign)?;
        Ok(Self { key, request })
    }
}

fn random(length: usize) -> Result<String, Error> {
    let mut text = String::new();
    while text.len() < length {
        let mut byte = [0];
        getrandom::fill(&mut byte).map_err(Error::Random)?;
        // Every letter as likely as any other: what is beyond seven alphabets is drawn again.
        if usize::from(byte[0]) < LETTERS.len() * 7 {
            text.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    Ok(text)
}
