//! Authorities that rotate: what the tenant publishes takes the place of what this machine believes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::access::{Who, client};
use super::discover::cluster_info;
use super::join::authorities;
use super::paths::{AUTHORITY, Membership, write};
use super::service;

/// Since the kubelet last started there are other authorities: it is to be restarted, however long that fails.
const RESTART_DUE: &str = "/var/lib/stoker-node/restart-due";

/// Looks once; true when the kubelet believes others now.
pub(crate) async fn authorities_once(member: &Membership) -> Result<bool> {
    let looked = look(member).await;
    // It reads its own way to the API server at its start alone. Pods run on.
    let restarted = restart_if_due(Path::new(RESTART_DUE), service::restart_kubelet).await?;
    looked.map(|()| restarted)
}

async fn look(member: &Membership) -> Result<()> {
    let before = authorities()?;
    let Some(now) = others(&member.server, &before).await? else {
        return Ok(());
    };
    write(RESTART_DUE, "", 0o600)?;
    write(AUTHORITY, &now, 0o644)
}

/// What the tenant publishes, where it is something else than `before`. Who is asked is believed by the authorities of before,
/// so that nobody else can bring in new ones; and by the new ones alone as well, since with those that are not its server's
/// nobody would ever be believed again.
async fn others(server: &str, before: &str) -> Result<Option<String>> {
    let published = async |believed: &str| {
        let client = client(server, Some(believed), &Who::Nobody)?;
        let (now, _) = cluster_info(&client).await?;
        anyhow::Ok(now)
    };
    let now = published(before).await;
    let now = now.context("asking the tenant for its authorities")?;
    if now == before {
        return Ok(None);
    }
    ensure!(
        stoker_pki::certificate_count(&now).is_ok_and(|count| count > 0),
        "the tenant publishes no authority"
    );
    published(&now).await.context(
        "the tenant publishes authorities (cluster-info in kube-public) that do not vouch for its server; they are not believed",
    )?;
    Ok(Some(now))
}

/// Restarts when it is `due`, which it is until that has succeeded.
async fn restart_if_due(due: &Path, restart: impl AsyncFnOnce() -> Result<()>) -> Result<bool> {
    if !due.exists() {
        return Ok(false);
    }
    restart().await.context("restarting the kubelet")?;
    fs::remove_file(due).with_context(|| format!("removing {}", due.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use anyhow::bail;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rustls::ServerConfig;
    use rustls::crypto::ring::default_provider;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use serde_json::json;
    use stoker_pki::{Authority, LeafRequest, LeafUsage};
    use time::OffsetDateTime;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn authority() -> Authority {
        let lifetime = time::Duration::days(9);
        Authority::generate("kubernetes", lifetime, OffsetDateTime::now_utc()).unwrap()
    }

    /// Answers every question by `cluster-info` with these authorities, with a certificate of `own`.
    async fn server(own: &Authority, published: &str) -> SocketAddr {
        let leaf = LeafRequest {
            common_name: "kube-apiserver".to_owned(),
            organizations: Vec::new(),
            usage: LeafUsage::Server,
            dns_names: Vec::new(),
            ip_addresses: vec![[127, 0, 0, 1].into()],
            lifetime: time::Duration::hours(1),
        };
        let leaf = own.issue(&leaf, OffsetDateTime::now_utc()).unwrap();
        let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let data = STANDARD.encode(published);
        let kubeconfig =
            json!({ "clusters": [{ "cluster": { "certificate-authority-data": data } }] });
        let body = json!({ "data": { "kubeconfig": kubeconfig.to_string() } }).to_string();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }

    #[tokio::test]
    async fn authorities_are_believed_only_when_the_server_is_theirs() {
        let (old, new, stranger) = (authority(), authority(), authority());
        let looked = async |published: String| {
            let server = server(&old, &published).await.to_string();
            others(&server, old.certificate()).await
        };
        let both = [old.certificate(), new.certificate()].concat();
        assert_eq!(looked(both.clone()).await.unwrap(), Some(both));
        assert_eq!(looked(old.certificate().to_owned()).await.unwrap(), None);
        let wrong = looked(stranger.certificate().to_owned()).await;
        let wrong = format!("{:#}", wrong.unwrap_err());
        assert!(wrong.contains("do not vouch"), "{wrong}");
    }

    #[tokio::test]
    async fn a_restart_that_fails_is_tried_again_and_one_that_succeeds_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let due = folder.path().join("due");
        assert!(!restart_if_due(&due, async || bail!("no")).await.unwrap());
        fs::write(&due, "").unwrap();
        assert!(restart_if_due(&due, async || bail!("no")).await.is_err());
        assert!(restart_if_due(&due, async || Ok(())).await.unwrap());
        assert!(!restart_if_due(&due, async || bail!("no")).await.unwrap());
    }
}
