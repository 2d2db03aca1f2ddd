//! An API server with a tenant's credentials, from the tenant's Secrets.

use std::net::SocketAddr;
use std::path::PathBuf;

use stoker_lab::bare::{BareApiServer, ServerSettings};
use stoker_lab::versions::{KubernetesVersion, default_kubernetes};
use stoker_pki::{Authority, KeyedCertificate, PrivateKey, ServiceAccountKey};

use super::bare::Bare;

/// Where the operator dials control-plane pods.
pub(crate) const PORT: u16 = 6443;

/// Starts that of the tenant `one` in `namespace`.
#[allow(dead_code, reason = "not every suite does so")]
pub(crate) async fn start(bare: &Bare, namespace: &str, address: SocketAddr) -> BareApiServer {
    start_with(bare, namespace, address, default_kubernetes(), None).await
}

/// The same of another release, and with an `AuthorizationConfiguration`.
pub(crate) async fn start_with(
    bare: &Bare,
    namespace: &str,
    address: SocketAddr,
    version: KubernetesVersion,
    authorization: Option<PathBuf>,
) -> BareApiServer {
    let text = async |name: &str, entry: &str| {
        let secret = bare.secrets(namespace).get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[entry].0.clone()).unwrap()
    };
    let certificate = text("one-api-server-certificate", "apiserver.crt").await;
    let key = text("one-api-server-certificate", "apiserver.key").await;
    let (ca, ca_key) = (
        text("one-ca", "ca.crt").await,
        text("one-ca", "ca.key").await,
    );
    let (private, public) = (
        text("one-sa-certificate", "sa.key").await,
        text("one-sa-certificate", "sa.pub").await,
    );
    let settings = ServerSettings {
        address,
        service_cidr: "10.96.0.0/16".to_owned(),
        authority: Authority::from_pem(&ca, &ca_key).unwrap(),
        serving: KeyedCertificate {
            certificate,
            key: PrivateKey::from_pem(&key).unwrap(),
        },
        serving_name: format!("one.{namespace}.svc"),
        service_account: ServiceAccountKey::from_pem(&private, &public).unwrap(),
        authorization,
    };
    let api_server = BareApiServer::start_with(version, settings);
    api_server.await.unwrap()
}
