//! The certificate that this replica shows, as the Secret has it.

use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::SECRET;
use super::authority::serving_of;

/// The certificate that this replica shows; none until the Secret has one.
#[derive(Debug, Default)]
pub(super) struct Serving(RwLock<Option<Arc<CertifiedKey>>>);

impl Serving {
    /// Takes every certificate that the Secret shows. One that cannot be read, or a Secret that is gone, leaves the last.
    pub(super) async fn follow(&self, client: Client, namespace: &str) {
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let mut seen = std::pin::pin!(watcher::watch_object(secrets, SECRET).default_backoff());
        while let Some(event) = seen.next().await {
            match event {
                Ok(Some(secret)) => self.take(&secret),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(kind = "Secret", error = %error, "watch broken, resuming");
                }
            }
        }
    }

    fn take(&self, secret: &Secret) {
        let certified =
            serving_of(secret).and_then(|(certificate, key)| certified(&certificate, &key));
        let Some(certified) = certified else {
            tracing::warn!(
                secret = SECRET,
                "no certificate can be read for the webhook"
            );
            return;
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        tracing::debug!("the webhook shows the Secret's certificate");
    }
}

fn certified(certificate: &str, key: &str) -> Option<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok()?;
    let certified = CertifiedKey::new(chain, any_supported_type(&key).ok()?);
    certified.keys_match().ok()?;
    Some(certified)
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
