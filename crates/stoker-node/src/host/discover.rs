//! Finding the tenant: its authorities, believed by the token's pins, and what its nodes are configured with.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::Value;
use stoker_api::host_agent::KEY;
use stoker_pki::JoinCredential;

use super::access::{Who, client};
use super::certificate;
use super::orders::Asked;

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
    /// What it asks of `run`.
    pub(crate) asked: Asked,
}

/// What `cluster-info` says.
pub(crate) struct Published {
    /// Authorities of the tenant, PEM.
    pub(crate) authorities: String,
    /// By how many seconds this machine's clock is ahead of the API server's.
    pub(crate) ahead: i64,
    /// What the tenant asks of `run`.
    pub(crate) asked: Asked,
}

/// Asks for everything that the token opens, or the certificate of the node `name` that the machine has from a join that was
/// cut off: the token may have ended since.
pub(crate) async fn discover(credential: &JoinCredential, name: &str) -> Result<Tenant> {
    let server = &credential.server;
    let Published {
        authorities,
        ahead,
        asked,
    } = believed(credential).await?;
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
        asked,
    })
}

/// The tenant's authorities, and by how many seconds this machine's clock is ahead. While an authority is replaced there are two, of
/// which the token may know one: that one vouches for who names them.
async fn believed(credential: &JoinCredential) -> Result<Published> {
    let server = &credential.server;
    // Who answers is not believed: only what the pins of the token are for.
    let stranger = client(server, None, &Who::Nobody)?;
    let claimed = cluster_info(&stranger)
        .await
        .with_context(|| format!("asking {server} for its authorities"))?;
    let pinned = credential.pinned(&claimed.authorities);
    ensure!(
        !pinned.is_empty(),
        "{server} is not the tenant that the token is for: its authority is another one. Where it was replaced since, make another token"
    );
    let tenant = client(server, Some(&pinned), &Who::Nobody)?;
    let published = cluster_info(&tenant).await.with_context(|| {
        format!("asking {server}, by the authority that the token is for, for all of them")
    })?;
    Ok(Published {
        ahead: claimed.ahead,
        ..published
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

/// Reads `cluster-info`.
pub(crate) async fn cluster_info(client: &Client) -> Result<Published> {
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
    let keys = found.data.unwrap_or_default();
    let text = keys.get("kubeconfig");
    let text = text.context("cluster-info has no kubeconfig")?;
    Ok(Published {
        authorities: authorities_of(text)?,
        ahead: ahead.unwrap_or(0),
        asked: Asked::parse(keys.get(KEY).map(String::as_str)),
    })
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
    use stoker_pki::{Authority, BootstrapToken, ca_hash};

    use super::super::stand_in::{Shown, authority, cluster_info_of, serve};
    use super::*;

    /// What a token that pins `pinned` makes of a server that shows this and publishes that.
    async fn asked(pinned: &Authority, shown: Shown<'_>, published: &str) -> Result<String> {
        let credential = JoinCredential {
            server: serve(shown, cluster_info_of(published)).await.to_string(),
            ca_hashes: vec![ca_hash(pinned.certificate()).unwrap()],
            token: BootstrapToken::generate().unwrap(),
        };
        believed(&credential)
            .await
            .map(|published| published.authorities)
    }

    #[tokio::test]
    async fn a_token_that_knows_one_of_two_authorities_is_enough_where_that_one_vouches() {
        let (old, new) = (authority(), authority());
        let old_first = [old.certificate(), new.certificate()].concat();
        let new_first = [new.certificate(), old.certificate()].concat();
        let distributing = asked(&old, Shown::Leaf(&old), &old_first).await;
        assert_eq!(distributing.unwrap(), old_first);
        let linked = || Shown::Linked(&new, &old);
        for token in [&old, &new] {
            let signing = asked(token, linked(), &new_first).await;
            assert_eq!(signing.unwrap(), new_first);
        }
        let left = asked(&old, linked(), new.certificate()).await.unwrap_err();
        assert!(
            format!("{left:#}").contains("make another token"),
            "{left:#}"
        );
    }

    #[tokio::test]
    async fn a_stranger_who_names_the_tenants_authority_beside_its_own_is_not_believed() {
        let (tenants, own) = (authority(), authority());
        let both = [tenants.certificate(), own.certificate()].concat();
        let refused = asked(&tenants, Shown::Leaf(&own), &both).await.unwrap_err();
        assert!(
            format!("{refused:#}").contains("by the authority"),
            "{refused:#}"
        );
    }

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
