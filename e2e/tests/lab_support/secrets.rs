//! Secrets of a running tenant deleted by hand on the management side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, ResourceExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::pods::{restarts, uids};
use crate::world::{Tenant, World, eventually, text};

const NAME: &str = "other";
/// All of a tenant's Secrets that follow from its keys, by suffix.
const DERIVED: [&str; 8] = [
    "api-server-certificate",
    "api-server-kubelet-client-certificate",
    "front-proxy-client-certificate",
    "admin-kubeconfig",
    "controller-manager-kubeconfig",
    "scheduler-kubeconfig",
    "datastore-certificate",
    "datastore-config",
];

pub(crate) async fn derived_secrets_heal_and_the_running_api_server_takes_the_new_certificate(
    world: &World,
) -> Result<()> {
    let tenant = world.tenant(NAME).await?;
    let before = world.pods(NAME).await?;
    let deployments: Api<Deployment> = Api::namespaced(world.management.clone(), NAME);
    let generation = deployments.get(NAME).await?.metadata.generation;
    let secrets = world.secrets(NAME);
    let old = shown(world, &tenant).await?;
    for suffix in DERIVED {
        let name = format!("{NAME}-{suffix}");
        let gone = secrets.get(&name).await?;
        secrets.delete(&name, &DeleteParams::default()).await?;
        let begun = Instant::now();
        eventually(
            Duration::from_secs(15),
            &format!("{name} is back"),
            async || {
                let found = secrets.get_metadata(&name).await?;
                ensure!(found.uid() != gone.uid(), "it is still the old one");
                Ok(())
            },
        )
        .await?;
        println!("{name}: back after {:.1?}", begun.elapsed());
    }
    let secret = secrets
        .get(&format!("{NAME}-api-server-certificate"))
        .await?;
    let wanted = CertificateDer::from_pem_slice(text(&secret, "apiserver.crt")?.as_bytes())
        .map_err(|error| anyhow::anyhow!("the new certificate: {error}"))?;
    ensure!(wanted != old, "the serving certificate was not issued anew");
    let begun = Instant::now();
    eventually(
        Duration::from_mins(2),
        "the new certificate is served",
        async || {
            ensure!(
                shown(world, &tenant).await? == wanted,
                "the API server shows another one"
            );
            Ok(())
        },
    )
    .await?;
    println!("new certificate served after {:.1?}", begun.elapsed());
    // The new administrator's kubeconfig works, and the API server writes to the pool.
    let tenant = world.ready(NAME).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(tenant.client.clone());
    let metadata = ObjectMeta {
        generate_name: Some("e2e-".into()),
        ..ObjectMeta::default()
    };
    maps.create(
        &PostParams::default(),
        &ConfigMap {
            metadata,
            ..ConfigMap::default()
        },
    )
    .await?;
    let after = world.pods(NAME).await?;
    ensure!(
        uids(&after) == uids(&before) && restarts(&after) == restarts(&before),
        "control-plane pods were restarted"
    );
    ensure!(
        deployments.get(NAME).await?.metadata.generation == generation,
        "the Deployment was rolled out anew"
    );
    Ok(())
}

/// The certificate that the tenant's API server shows in a handshake that its kubeconfig's authority vouches for.
async fn shown(world: &World, tenant: &Tenant) -> Result<CertificateDer<'static>> {
    use base64::Engine as _;
    let kubeconfig = Kubeconfig::from_yaml(&tenant.kubeconfig)?;
    let cluster = kubeconfig
        .clusters
        .into_iter()
        .find_map(|named| named.cluster);
    let authority = cluster.and_then(|cluster| cluster.certificate_authority_data);
    let authority = base64::engine::general_purpose::STANDARD
        .decode(authority.context("no authority in the kubeconfig")?)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authority) {
        roots.add(certificate.map_err(|error| anyhow::anyhow!("the authority: {error}"))?)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let endpoint = world
        .status(&tenant.name)
        .await?
        .control_plane_endpoint
        .context("no endpoint")?;
    let host = endpoint
        .rsplit_once(':')
        .context("an endpoint is host:port")?
        .0
        .to_owned();
    let socket = tokio::net::TcpStream::connect(&endpoint).await?;
    let name = ServerName::try_from(host)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    Ok(shown
        .context("no certificate was shown")?
        .clone()
        .into_owned())
}
