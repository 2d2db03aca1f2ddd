//! A tenant's API server for tests: real TLS, and answers that are written down.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use stoker_pki::{Authority, LeafRequest, LeafUsage};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Rotations keep the name: what tells authorities apart is the key.
const NAME: &str = "kubernetes";

pub(super) fn authority() -> Authority {
    let lifetime = time::Duration::days(9);
    Authority::generate(NAME, lifetime, OffsetDateTime::now_utc()).unwrap()
}

pub(super) fn leaf(common_name: &str, usage: LeafUsage) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organizations: vec!["system:nodes".to_owned()],
        usage,
        dns_names: Vec::new(),
        ip_addresses: vec![[127, 0, 0, 1].into()],
        lifetime: time::Duration::hours(1),
    }
}

/// What a server shows of itself.
pub(super) enum Shown<'a> {
    /// A certificate of this authority.
    Leaf(&'a Authority),
    /// The same, and of the authority's own key the certificate that the second one has signed.
    Linked(&'a Authority, &'a Authority),
}

/// The key of one authority, certified by another.
fn link(of: &Authority, by: &Authority) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    let key = |one: &Authority| KeyPair::from_pem(one.key().as_pem()).unwrap();
    let by = Issuer::from_ca_cert_pem(by.certificate(), key(by)).unwrap();
    params.signed_by(&key(of), &by).unwrap().pem()
}

/// An answer: status and body.
pub(super) type Answer = (u16, Value);

/// What `cluster-info` with these authorities is answered as, whatever is asked.
pub(super) fn cluster_info_of(published: &str) -> impl FnMut(&str, &[u8]) -> Answer + use<> {
    let data = STANDARD.encode(published);
    let kubeconfig = json!({ "clusters": [{ "cluster": { "certificate-authority-data": data } }] });
    let body = json!({ "data": { "kubeconfig": kubeconfig.to_string() } });
    move |_, _| (200, body.clone())
}

/// A controller manager, and what was asked of it.
#[derive(Default)]
pub(super) struct Signing {
    /// By whom it signs now; without one it answers nothing.
    pub(super) by: Option<Authority>,
    /// By their names.
    pub(super) requests: BTreeMap<String, Value>,
}

/// Requests for certificates, which are answered once and for all, when they are read.
pub(super) fn requests_of(signing: Arc<Mutex<Signing>>) -> impl FnMut(&str, &[u8]) -> Answer {
    move |line, body| {
        let mut signing = signing.lock().unwrap();
        let Signing { by, requests } = &mut *signing;
        if line.starts_with("POST ") {
            let object: Value = serde_json::from_slice(body).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap();
            requests.insert(name.to_owned(), object.clone());
            return (201, object);
        }
        let name = line
            .split([' ', '/'])
            .rfind(|part| part.starts_with("node-csr-"));
        let Some(object) = requests.get_mut(name.unwrap()) else {
            let status = json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound",
                "code": 404, "message": "there is none",
            });
            return (404, status);
        };
        if let Some(by) = by
            && object["status"].is_null()
        {
            object["status"] = signed(object, by);
        }
        (200, object.clone())
    }
}

fn signed(object: &Value, by: &Authority) -> Value {
    let request = object["spec"]["request"].as_str().unwrap();
    let request = String::from_utf8(STANDARD.decode(request).unwrap()).unwrap();
    let request = CertificateSigningRequestParams::from_pem(&request).unwrap();
    let key = KeyPair::from_pem(by.key().as_pem()).unwrap();
    let by = Issuer::from_ca_cert_pem(by.certificate(), key).unwrap();
    json!({ "certificate": STANDARD.encode(request.signed_by(&by).unwrap().pem()) })
}

/// Answers every request, by its first line and its body.
pub(super) async fn serve(
    shown: Shown<'_>,
    mut answer: impl FnMut(&str, &[u8]) -> Answer + Send + 'static,
) -> SocketAddr {
    let own = match shown {
        Shown::Leaf(own) | Shown::Linked(own, _) => own,
    };
    let leaf = leaf("kube-apiserver", LeafUsage::Server);
    let leaf = own.issue(&leaf, OffsetDateTime::now_utc()).unwrap();
    let mut chain = leaf.certificate;
    if let Shown::Linked(own, by) = shown {
        chain.push_str(&link(own, by));
    }
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut asked = Vec::new();
            let (line, body) = loop {
                let mut read = [0; 4096];
                let Ok(count @ 1..) = stream.read(&mut read).await else {
                    break (String::new(), Vec::new());
                };
                asked.extend_from_slice(&read[..count]);
                if let Some(whole) = whole(&asked) {
                    break whole;
                }
            };
            let (status, body) = answer(&line, &body);
            let body = body.to_string();
            let length = body.len();
            let said = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// First line and body of a request that has come to its end.
fn whole(asked: &[u8]) -> Option<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(asked);
    let end = text.find("\r\n\r\n")? + 4;
    let head = text[..end].to_ascii_lowercase();
    let mut lengths = head
        .lines()
        .filter_map(|line| line.strip_prefix("content-length: "));
    let length = lengths.next().map_or(0, |length| length.parse().unwrap());
    let body = asked.get(end..end + length)?;
    let line = text.lines().next().unwrap_or_default();
    Some((line.to_owned(), body.to_vec()))
}
