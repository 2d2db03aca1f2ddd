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

use super::paths::{CERTIFICATE, link, remove, write};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// How an answer is waited for.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) patience: Duration,
    pub(crate) look: Duration,
}

/// A person waits. The operator answers within the second; it may be starting.
pub(crate) const JOINING: Pace = Pace {
    patience: Duration::from_mins(5),
    look: Duration::from_millis(200),
};
/// All nodes ask within the same minute, and again in the next one.
pub(crate) const RENEWING: Pace = Pace {
    patience: Duration::from_secs(5),
    look: Duration::from_secs(1),
};

/// The tenant has refused this machine; of its attempt nothing stays here.
#[derive(Debug, thiserror::Error)]
#[error("the tenant refuses this machine: {message} ({reason})")]
pub(crate) struct Denied {
    message: String,
    reason: String,
}

/// Whether the machine has a certificate of the node `name`, by one of `authorities` (PEM), and its key.
pub(crate) fn is_held(name: &str, authorities: &str) -> bool {
    let text = fs::read_to_string(CERTIFICATE).unwrap_or_default();
    stoker_pki::is_node_credential(&text, name, authorities, OffsetDateTime::now_utc())
}

/// Gets a certificate of the node `name`: PEM, with its key. The key lies in the file `key` until it is kept, so that an attempt
/// that was cut off goes on with what it has asked for.
pub(crate) async fn obtain(client: &Client, name: &str, key: &str, pace: &Pace) -> Result<String> {
    let known = fs::read_to_string(key).ok();
    let request = NodeRequest::new(name, known.as_deref()).context("making the node's key")?;
    if known.is_none() {
        write(key, request.key.as_pem(), 0o600)?;
    }
    let asked = ask(client, &request, pace).await;
    if asked.as_ref().is_err_and(anyhow::Error::is::<Denied>) {
        // The answer is for this key: another attempt needs another one.
        let _ = fs::remove_file(key);
    }
    Ok(format!("{}{}", asked?, request.key.as_pem()))
}

/// Puts a certificate where the kubelet renews it: at the link `current`. Its key needs the file `key` no more.
pub(crate) fn keep(credential: &str, current: &str, key: &str) -> Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
    // As a kubelet names them (`k8s.io/client-go/util/certificate`).
    let file = PathBuf::from(current).with_file_name(format!("kubelet-client-{now}.pem"));
    write(&file.to_string_lossy(), credential, 0o600)?;
    link(&file, current)?;
    remove(key)
}

async fn ask(client: &Client, request: &NodeRequest, pace: &Pace) -> Result<String> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let read = SigningRequest::from_pem(request.request.as_bytes())?;
    let hash = read.key_hash.trim_start_matches("sha256:");
    // By the key: who goes on finds what was asked before.
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
            begun.elapsed() < pace.patience,
            "nobody has answered the request {name} within {:?}: are the operator and the tenant's kube-controller-manager running? Another attempt goes on with it",
            pace.patience
        );
        tokio::time::sleep(pace.look).await;
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
