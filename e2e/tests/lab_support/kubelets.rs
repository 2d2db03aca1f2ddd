//! What a joined kubelet serves, and whom the API server believes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::ListParams;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use stoker_lab::demo::TENANT;
use stoker_lab::host::Host;
use tokio::net::TcpStream;

use crate::world::{World, eventually, text};

/// Where kubeadm put what the kubelet was told when it joined.
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// A kubelet takes a moment to start, and one to get its certificate.
const RESTART: Duration = Duration::from_mins(1);

/// The serving certificate is one of the tenant's authority for the node's address, by a request that the operator has
/// approved. A kubelet that serves one of its own, as those do that joined before there were others, gets no request;
/// what an upgraded node does, as `docs/decisions/0014-kubelet-serving-certificates.md` says, mends it.
pub(crate) async fn logs_and_exec_go_only_to_a_kubelet_with_a_certificate_of_the_tenant(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let worker = world.lab.host("worker-1")?;
    let ca = world.secrets(TENANT).get(&format!("{TENANT}-ca")).await?;
    let ca = text(&ca, "ca.crt")?;
    let pod = echo(world).await?;
    let verified = world.status(TENANT).await?.kubelets_verified;
    ensure!(verified == Some(true), "verified: {verified:?}");
    ensure!(serves(&worker, &ca).await?, "its certificate is another's");
    approved(&tenant.client).await?;
    reached(world, &pod).await?;

    // As it was before kubelets asked.
    sed(
        &worker,
        "s/^serverTLSBootstrap: true/serverTLSBootstrap: false/",
    )
    .await?;
    worker
        .run(["sh", "-c", "rm -f /var/lib/kubelet/pki/kubelet-server-*"])
        .await?;
    worker.restart("kubelet")?;
    eventually(RESTART, "it serves one of its own", async || {
        ensure!(!serves(&worker, &ca).await?, "the same as before");
        Ok(())
    })
    .await?;
    let refused = world.lab.kubectl_with(TENANT, &["logs", &pod]).await;
    let refused = refused
        .err()
        .context("logs of a kubelet that nobody vouches for")?;
    let says = format!("{refused:#}");
    ensure!(says.contains("failed to verify certificate"), "{says}");

    let upgrade = ["kubeadm", "upgrade", "node", "phase", "kubelet-config"];
    let patches = ["--patches", "/etc/stoker-lab/patches"];
    worker.run(upgrade.iter().chain(&patches)).await?;
    worker.restart("kubelet")?;
    eventually(RESTART, "it serves one of the tenant's", async || {
        ensure!(serves(&worker, &ca).await?, "not yet");
        Ok(())
    })
    .await?;
    // A kubelet that has just begun does not know its pods yet.
    eventually(RESTART, "it shows its pods", async || {
        reached(world, &pod).await
    })
    .await
}

async fn sed(worker: &Host, expression: &str) -> Result<()> {
    worker
        .run(["sed", "-i", expression, CONFIG])
        .await
        .map(drop)
}

/// A pod on the worker.
async fn echo(world: &World) -> Result<String> {
    let name = [
        "get",
        "pods",
        "-l",
        "app=echo",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ];
    world.lab.kubectl_with(TENANT, &name).await
}

async fn reached(world: &World, pod: &str) -> Result<()> {
    let kubectl = async |arguments: &[&str]| world.lab.kubectl_with(TENANT, arguments).await;
    ensure!(!kubectl(&["logs", pod]).await?.is_empty(), "no logs");
    let said = kubectl(&["exec", pod, "--", "/agnhost", "help"]).await?;
    ensure!(!said.is_empty(), "exec printed nothing");
    Ok(())
}

/// Every request of kubelets was approved by the operator, and signed.
async fn approved(inside: &kube::Client) -> Result<()> {
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let serving = ListParams::default().fields("spec.signerName=kubernetes.io/kubelet-serving");
    let found = requests.list(&serving).await?.items;
    ensure!(!found.is_empty(), "nobody has asked");
    for request in found {
        let status = request.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ours = |reason: &Option<String>| reason.as_deref() == Some("AddressesOfNode");
        ensure!(
            conditions
                .iter()
                .any(|found| found.type_ == "Approved" && ours(&found.reason)),
            "{conditions:?}"
        );
        ensure!(status.certificate.is_some(), "approved and not signed");
    }
    Ok(())
}

/// Whether the kubelet's certificate is of that authority and for the host's address.
///
/// # Errors
/// Nobody listens.
async fn serves(worker: &Host, ca: &str) -> Result<bool> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect((worker.address(), 10250)).await?;
    let name = ServerName::from(std::net::IpAddr::from(worker.address()));
    match connector.connect(name, stream).await {
        Ok(_) => Ok(true),
        Err(error) if format!("{error:?}").contains("InvalidCertificate") => Ok(false),
        Err(error) => Err(error).context("shaking hands with the kubelet"),
    }
}
