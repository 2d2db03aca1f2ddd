//! The node's certificate: a key made here, a request with the token, and the answer.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use stoker_pki::{NodeRequest, SigningRequest};
use time::OffsetDateTime;

use super::paths::{CERTIFICATE, KEY, link, remove, write};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The operator answers within the second; it may be starting.
const PATIENCE: Duration = Duration::from_mins(5);
const LOOK: Duration = Duration::from_millis(200);

/// The tenant has refused this machine; of its attempt nothing stays here.
#[derive(Debug, thiserror::Error)]
#[error("this machine may not join: {message} ({reason})")]
pub(crate) struct Denied {
    message: String,
    reason: String,
}

/// Whether the machine has a certificate of the node `name`, by one of `authorities` (PEM), and its key.
pub(crate) fn is_held(name: &str, authorities: &str) -> bool {
    let text = fs::read_to_string(CERTIFICATE).unwrap_or_default();
    stoker_pki::is_node_credential(&text, name, authorities, OffsetDateTime::now_utc())
}

/// Gets the certificate of the node `name`: PEM, with its key.
pub(crate) async fn obtain(client: &Client, name: &str) -> Result<String> {
    let known = fs::read_to_string(KEY).ok();
    let request = NodeRequest::new(name, known.as_deref()).context("making the node's key")?;
    if known.is_none() {
        write(KEY, request.key.as_pem(), 0o600)?;
    }
    let certificate = ask(client, &request).await?;
    Ok(format!("{certificate}{}", request.key.as_pem()))
}

/// Puts a certificate where the kubelet renews it.
pub(crate) fn keep(credential: &str) -> Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
    // As a kubelet names them (`k8s.io/client-go/util/certificate`).
    let file = PathBuf::from(CERTIFICATE).with_file_name(format!("kubelet-client-{now}.pem"));
    write(&file.to_string_lossy(), credential, 0o600)?;
    link(&file, CERTIFICATE)?;
    remove(KEY)
}

async fn ask(client: &Client, request: &NodeRequest) -> Result<String> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let read = SigningRequest::from_pem(request.request.as_bytes())?;
    let hash = read.key_hash.trim_start_matches("sha256:");
    // By the key: a join that goes on finds what it asked before.
    let object = object(&format!("node-csr-{hash}"), request);
    let name = object.metadata.name.clone().unwrap_or_default();
    let begun = Instant::now();
    loop {
        let found = requests.get_opt(&name).await;
        let found = match found.context("reading the request for a certificate")? {
            Some(found) => found,
            None => requests
                .create(&PostParams::default(), &object)
                .await
                .context("asking for a certificate")?,
        };
        let status = found.status.unwrap_or_default();
        for condition in status.conditions.into_iter().flatten() {
            if ["Denied", "Failed"].contains(&condition.type_.as_str()) {
                // The answer is for this key: another attempt needs another one.
                let _ = fs::remove_file(KEY);
                return Err(anyhow!(Denied {
                    message: condition.message.unwrap_or_default(),
                    reason: condition.reason.unwrap_or_default(),
                }));
            }
        }
        if let Some(certificate) = status.certificate {
            return String::from_utf8(certificate.0).context("reading the certificate");
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "nobody has answered the request {name} within {PATIENCE:?}: is the operator running? Run this again to go on"
        );
        tokio::time::sleep(LOOK).await;
    }
}

fn object(name: &str, request: &NodeRequest) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            signer_name: SIGNER.to_owned(),
            request: ByteString(request.request.clone().into_bytes()),
            usages: Some(vec![
                "digital signature".to_owned(),
                "client auth".to_owned(),
            ]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}
