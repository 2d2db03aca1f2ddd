//! A real issuer of OIDC tokens: discovery and keys over TLS, and tokens signed with ES256.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use stoker_lab::credentials;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A running issuer; it ends with its value.
pub(crate) struct OidcIssuer {
    pub(crate) url: String,
    /// PEM of the authority that signed its certificate.
    pub(crate) authority: String,
    key: EcdsaKeyPair,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for OidcIssuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const KEY_ID: &str = "one";

impl OidcIssuer {
    pub(crate) async fn start() -> Self {
        let authority = credentials::authority("issuer").unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let leaf = credentials::server(&authority, "issuer", &["localhost"], &[address]).unwrap();
        let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_pem().as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind(SocketAddr::new(address, 0))
            .await
            .unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let point = key.public_key().as_ref();
        let keys = json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]});
        let discovery = json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"),
            "authorization_endpoint": format!("{url}/authorize"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let task = tokio::spawn(serve(listener, Arc::new(config), discovery, keys));
        Self {
            url,
            authority: authority.certificate().to_owned(),
            key,
            task,
        }
    }

    /// A token for the audience `stoker` that lives five minutes, with more claims or others.
    pub(crate) fn token(&self, subject: &str, more: &Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": self.url, "aud": "stoker", "sub": subject, "iat": now, "exp": now + 300,
        });
        json_patch::merge(&mut claims, more);
        let header = json!({ "alg": "ES256", "kid": KEY_ID, "typ": "JWT" });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn serve(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    discovery: Value,
    keys: Value,
) {
    let acceptor = TlsAcceptor::from(config);
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, discovery, keys) = (acceptor.clone(), discovery.clone(), keys.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut stream = BufReader::new(stream);
            let mut request = String::new();
            // Each answer closes the connection, so the rest of the request does not matter.
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                if request.is_empty() {
                    request.clone_from(&line);
                }
                line.clear();
            }
            let (status, body) = match request.split(' ').nth(1) {
                Some("/.well-known/openid-configuration") => ("200 OK", discovery.to_string()),
                Some("/keys") => ("200 OK", keys.to_string()),
                _ => ("404 Not Found", String::new()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}
