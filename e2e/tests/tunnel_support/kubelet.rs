//! What a kubelet serves, as far as it is asked here: TLS with the node's certificate, for API servers alone.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Where kubelets serve.
pub(super) const PORT: u16 = 10250;
/// Bytes of a pod's log.
pub(super) const LOG: usize = 64 << 20;

/// Serves from the network of this thread, in a thread of its own.
pub(super) fn serve(files: &Path, address: &str) {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(files.join("ca.crt")).unwrap())
        .unwrap();
    let provider = Arc::new(default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let chain = CertificateDer::from_pem_file(files.join("kubelet.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.join("kubelet.key")).unwrap();
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![chain], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = std::net::TcpListener::bind((address, PORT)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(acceptor.clone(), socket));
            }
        });
    });
}

/// A log for who asks for one, else what was asked.
async fn answer(acceptor: TlsAcceptor, socket: TcpStream) -> std::io::Result<()> {
    let mut stream = acceptor.accept(socket).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let line = head
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(" HTTP/1.1");
    let body = if line.starts_with("GET /containerLogs/") {
        vec![b'x'; LOG]
    } else {
        format!("kubelet: {line}").into_bytes()
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
