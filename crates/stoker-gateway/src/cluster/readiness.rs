//! Asks API servers that start whether they are ready, as kubelets do and ten times as often: `GET /readyz`, by nobody, from
//! whoever is at the address of the pod. It says nothing that is not for everybody, and who is led there finds out by TLS
//! whether it is whom it wants.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::directory::Starting;
use crate::sockets::dialing;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(2);
/// After this long it is left to the kubelet.
const PATIENCE: Duration = Duration::from_mins(1);

const QUESTION: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const YES: &[u8] = b"HTTP/1.1 200";

/// Those that are asked.
pub(super) struct Questions {
    asked: BTreeMap<Starting, AbortHandle>,
    tasks: JoinSet<Starting>,
    tls: TlsConnector,
}

impl Questions {
    /// # Errors
    /// There is no protocol version that the cryptography knows.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let anybody = Anybody(provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anybody))
            .with_no_client_auth();
        Ok(Self {
            asked: BTreeMap::new(),
            tasks: JoinSet::new(),
            tls: Arc::new(config).into(),
        })
    }

    /// Asks these, and no others any more.
    pub(super) fn ask(&mut self, starting: &BTreeSet<Starting>) {
        self.asked.retain(|asked, task| {
            let stays = starting.contains(asked);
            if !stays {
                task.abort();
            }
            stays
        });
        for start in starting {
            let (tasks, tls) = (&mut self.tasks, &self.tls);
            let task = || tasks.spawn(until_ready(start.clone(), tls.clone()));
            self.asked.entry(start.clone()).or_insert_with(task);
        }
    }

    /// The next that is ready.
    pub(super) async fn answered(&mut self) -> Starting {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ready)) => return ready,
                // It is not asked any more.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn until_ready(start: Starting, tls: TlsConnector) -> Starting {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if matches!(
            timeout(LIMIT, is_ready(start.address, &tls)).await,
            Ok(Ok(true))
        ) {
            return start;
        }
        sleep(PAUSE).await;
    }
    std::future::pending().await
}

async fn is_ready(address: SocketAddr, tls: &TlsConnector) -> io::Result<bool> {
    let stream = dialing(address)?.connect(address).await?;
    let mut stream = tls.connect(address.ip().into(), stream).await?;
    stream.write_all(QUESTION).await?;
    stream.flush().await?;
    let mut answer = [0; YES.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer == YES)
}

/// Whoever has the key of the certificate that is shown.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustls::ServerConfig;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Says 500 that often, then 200; counts who asked.
    async fn starting(refusals: u32) -> (Starting, Arc<AtomicU32>) {
        let own = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
        let key = own.signing_key.serialize_der().try_into().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut question = vec![0; QUESTION.len()];
                stream.read_exact(&mut question).await.unwrap();
                assert_eq!(question, QUESTION);
                let number = counter.fetch_add(1, Ordering::Relaxed);
                let status = if number < refusals {
                    "500 No"
                } else {
                    "200 OK"
                };
                let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let tenant = "a/one".into();
        (Starting { tenant, address }, asked)
    }

    #[tokio::test]
    async fn it_is_asked_until_it_says_yes() {
        let (start, asked) = starting(2).await;
        let mut questions = Questions::new().unwrap();
        let all = BTreeSet::from([start.clone()]);
        questions.ask(&all);
        questions.ask(&all);
        assert_eq!(questions.answered().await, start);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn who_does_not_start_any_more_is_not_asked() {
        let (start, asked) = starting(u32::MAX).await;
        let mut questions = Questions::new().unwrap();
        questions.ask(&BTreeSet::from([start]));
        while asked.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        questions.ask(&BTreeSet::new());
        // It says nothing, and nothing goes on beside it.
        assert!(timeout(3 * PAUSE, questions.answered()).await.is_err());
        assert!(asked.load(Ordering::Relaxed) <= 2);
    }
}
