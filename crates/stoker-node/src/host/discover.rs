//! Finding the tenant: its authorities, believed by the token's pins, and what its nodes are configured with.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::Value;
use stoker_pki::JoinCredential;

use super::access::{Who, client};
use super::certificate;

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// A tenant, as a machine that joins sees it.
pub(crate) struct Tenant {
    /// Its authorities, PEM.
    pub(crate) authorities: String,
    /// The way in, by the token or by the certificate.
    pub(crate) client: Client,
    /// Whether the machine has a certificate of its.
    pub(crate) held: bool,
    /// `KubeletConfiguration` for its nodes.
    pub(crate) kubelet: Value,
    /// Its version, as `v1.36.3`.
    pub(crate) version: String,
    /// How far this machine's clock is ahead of the API server's, seconds.
    pub(crate) ahead: i64,
}

/// Asks for everything that the token opens, or the certificate of the node `name` that the machine has from a join that was
/// cut off: the token may have ended since.
pub(crate) async fn discover(credential: &JoinCredential, name: &str) -> Result<Tenant> {
    let server = &credential.server;
    // Who answers is not believed: only what the pins of the token are for.
    let stranger = client(server, None, &Who::Nobody)?;
    let (authorities, ahead) = cluster_info(&stranger)
        .await
        .with_context(|| format!("asking {server} for its authorities"))?;
    ensure!(
        credential.pins(&authorities),
        "{server} is not the tenant that the token is for: its authority is another one"
    );
    let held = certificate::is_held(name, &authorities);
    let client = client(server, Some(&authorities), &asker(credential, held))?;
    let kubelet = config_map(&client, held, "kubelet-config", "kubelet").await?;
    let kubeadm = config_map(&client, held, "kubeadm-config", "ClusterConfiguration").await?;
    let version = kubeadm["kubernetesVersion"].as_str();
    let version = version
        .context("kubeadm-config names no version")?
        .to_owned();
    Ok(Tenant {
        authorities,
        client,
        held,
        kubelet,
        version,
        ahead,
    })
}

/// With a certificate the node, which may read what the token may (`kubeadm:kubelet-config`, `kubeadm:nodes-kubeadm-config`).
fn asker(credential: &JoinCredential, held: bool) -> Who<'static> {
    if held {
        Who::this_node()
    } else {
        Who::Bearer(credential.token.text())
    }
}

/// The authorities in `cluster-info`, and by how many seconds this machine's clock is ahead.
pub(crate) async fn cluster_info(client: &Client) -> Result<(String, i64)> {
    let request = http::Request::get(CLUSTER_INFO).body(kube::client::Body::empty())?;
    let response = client.send(request).await?;
    ensure!(
        response.status().is_success(),
        "the answer is {}",
        response.status()
    );
    let date = response.headers().get(http::header::DATE);
    let date = date.and_then(|date| date.to_str().ok().map(str::to_owned));
    let ahead = date.and_then(|date| seconds_ahead(&date, Timestamp::now()));
    let body = response.into_body().collect_bytes().await?;
    let found: ConfigMap = serde_json::from_slice(&body)?;
    let text = found.data.and_then(|mut data| data.remove("kubeconfig"));
    let text = text.context("cluster-info has no kubeconfig")?;
    Ok((authorities_of(&text)?, ahead.unwrap_or(0)))
}

fn authorities_of(kubeconfig: &str) -> Result<String> {
    let parsed: Value = serde_saphyr::from_str(kubeconfig)?;
    let encoded = parsed["clusters"][0]["cluster"]["certificate-authority-data"].as_str();
    let encoded = encoded.context("cluster-info has no authority")?;
    Ok(String::from_utf8(STANDARD.decode(encoded)?)?)
}

/// HTTP's date has whole seconds.
fn seconds_ahead(date: &str, now: Timestamp) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(now.as_second() - theirs.as_second())
}

/// A document of `kube-system`, which also tells whether the token or the certificate is good.
async fn config_map(client: &Client, held: bool, name: &str, key: &str) -> Result<Value> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let found = match maps.get(name).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 401 && held => {
            bail!(
                "the tenant does not know the certificate that this machine has: stoker-node leave, and join by a new token"
            )
        }
        Err(kube::Error::Api(status)) if status.code == 401 => {
            bail!(
                "the tenant does not know the token: it has ended, was revoked, or all its machines have come"
            )
        }
        Err(error) => return Err(anyhow!(error).context(format!("reading {name}"))),
    };
    let text = found.data.and_then(|mut data| data.remove(key));
    let text = text.with_context(|| format!("{name} has no {key}"))?;
    serde_saphyr::from_str(&text).with_context(|| format!("reading {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_compared_with_the_servers() {
        let now = "2026-05-01T12:00:10Z".parse().unwrap();
        let ahead = |date| seconds_ahead(date, now);
        assert_eq!(ahead("Fri, 01 May 2026 12:00:00 GMT"), Some(10));
        assert_eq!(ahead("Fri, 01 May 2026 13:00:10 GMT"), Some(-3600));
        assert_eq!(ahead("yesterday"), None);
    }

    #[test]
    fn a_machine_that_has_its_certificate_asks_without_the_token() {
        let credential = JoinCredential {
            server: "a:6443".to_owned(),
            ca_hashes: vec!["sha256:0".to_owned()],
            token: stoker_pki::BootstrapToken::generate().unwrap(),
        };
        assert!(matches!(asker(&credential, true), Who::Node(_)));
        assert!(matches!(asker(&credential, false), Who::Bearer(_)));
    }

    #[test]
    fn authorities_are_read_from_cluster_info() {
        let text = "clusters:\n- cluster:\n    certificate-authority-data: YQ==\n    server: https://x\n  name: ''\n";
        assert_eq!(authorities_of(text).unwrap(), "a");
        assert!(authorities_of("clusters: []").is_err());
    }
}
