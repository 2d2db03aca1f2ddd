//! A KMS v2 plugin on a socket, as kube-apiserver calls it (`k8s.io/kms/apis/v2/api.proto`), with a key in memory.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
}

/// A running plugin; its socket goes with the value.
pub(crate) struct KmsPlugin {
    /// What kube-apiserver takes for its endpoint.
    pub(crate) endpoint: String,
    /// The directory of the socket.
    pub(crate) directory: PathBuf,
    vault: Arc<Vault>,
    server: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for KmsPlugin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl KmsPlugin {
    /// Starts one with a new key.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kms").tempdir().unwrap();
        let socket = directory.path().join("kms.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let vault = Arc::new(Vault::new());
        let serving = Server::builder()
            .serve_with_incoming(Service(vault.clone()), UnixListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            endpoint: format!("unix://{}", socket.display()),
            directory: directory.path().to_owned(),
            vault,
            server,
            _directory: directory,
        }
    }

    /// How often something was encrypted or decrypted.
    pub(crate) fn calls(&self) -> u64 {
        self.vault.calls.load(Ordering::Relaxed)
    }
}

struct Vault {
    key: LessSafeKey,
    calls: AtomicU64,
    random: Mutex<SystemRandom>,
}

const KEY_ID: &str = "one";

impl Vault {
    fn new() -> Self {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).unwrap();
        Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).unwrap()),
            calls: AtomicU64::default(),
            random: Mutex::new(SystemRandom::new()),
        }
    }

    fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; NONCE_LEN];
        self.random.lock().unwrap().fill(&mut nonce).unwrap();
        let mut sealed = plaintext.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, Aad::empty(), &mut sealed)
            .unwrap();
        [&nonce[..], &sealed].concat()
    }

    fn decrypt(&self, request: &DecryptRequest) -> Result<Vec<u8>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let wrong = || Status::invalid_argument("not of this key");
        if request.key_id != KEY_ID {
            return Err(wrong());
        }
        let (nonce, sealed) = request
            .ciphertext
            .split_at_checked(NONCE_LEN)
            .ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut sealed = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::empty(), &mut sealed);
        opened.map(|bytes| bytes.to_vec()).map_err(|_| wrong())
    }
}

/// The calls by path.
#[derive(Clone)]
struct Service(Arc<Vault>);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let vault = self.0.clone();
        Box::pin(async move {
            let answer = match request.uri().path() {
                "/v2.KeyManagementService/Status" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.unary(GetStatus, request).await
                }
                "/v2.KeyManagementService/Encrypt" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.unary(Encrypt(vault), request).await
                }
                "/v2.KeyManagementService/Decrypt" => {
                    let mut grpc = Grpc::new(ProstCodec::default());
                    grpc.unary(Decrypt(vault), request).await
                }
                _ => Status::unimplemented("no such call").into_http(),
            };
            Ok(answer)
        })
    }
}

struct GetStatus;
struct Encrypt(Arc<Vault>);
struct Decrypt(Arc<Vault>);

type Answered<T> = Ready<Result<Response<T>, Status>>;

impl UnaryService<StatusRequest> for GetStatus {
    type Response = StatusResponse;
    type Future = Answered<StatusResponse>;

    fn call(&mut self, _: Request<StatusRequest>) -> Self::Future {
        ready(Ok(Response::new(StatusResponse {
            version: "v2".to_owned(),
            healthz: "ok".to_owned(),
            key_id: KEY_ID.to_owned(),
        })))
    }
}

impl UnaryService<EncryptRequest> for Encrypt {
    type Response = EncryptResponse;
    type Future = Answered<EncryptResponse>;

    fn call(&mut self, request: Request<EncryptRequest>) -> Self::Future {
        ready(Ok(Response::new(EncryptResponse {
            ciphertext: self.0.encrypt(&request.into_inner().plaintext),
            key_id: KEY_ID.to_owned(),
        })))
    }
}

impl UnaryService<DecryptRequest> for Decrypt {
    type Response = DecryptResponse;
    type Future = Answered<DecryptResponse>;

    fn call(&mut self, request: Request<DecryptRequest>) -> Self::Future {
        let opened = self.0.decrypt(&request.into_inner());
        ready(opened.map(|plaintext| Response::new(DecryptResponse { plaintext })))
    }
}
