//! Authorities that rotate: what the tenant publishes takes the place of what this machine believes, and what they sign of what its
//! kubelet has.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::access::{Who, client};
use super::discover::{Published, cluster_info};
use super::join::authorities;
use super::paths::{AUTHORITY, Membership, RESTART_DUE, write};
use super::renew::Renewal;
use super::service;

/// What the tenant says of itself, believed by the authorities that the machine has.
pub(crate) async fn published(server: &str, believed: &str) -> Result<Published> {
    let client = client(server, Some(believed), &Who::Nobody)?;
    cluster_info(&client)
        .await
        .context("asking the tenant for its authorities")
}

/// Follows what the tenant has `published`; true when the kubelet was restarted, and has other authorities or certificates now.
pub(crate) async fn once(
    member: &Membership,
    published: Result<String>,
    renewal: &mut Renewal,
) -> Result<bool> {
    let looked = match published {
        Ok(now) => look(member, &now).await,
        Err(error) => Err(error),
    };
    let renewed = renewal.look(member).await;
    // It reads its own way to the API server, and its certificates, at its start alone. Pods run on.
    let restarted = restart_if_due(Path::new(RESTART_DUE), service::restart_kubelet).await?;
    looked.and(renewed).map(|()| restarted)
}

async fn look(member: &Membership, now: &str) -> Result<()> {
    let before = authorities()?;
    if before == now {
        return Ok(());
    }
    is_its_servers(&member.server, now).await?;
    // Which of them is the first is nothing to the kubelet.
    if !are_the_same(&before, now) {
        write(RESTART_DUE, "", 0o600)?;
    }
    write(AUTHORITY, now, 0o644)
}

/// Whether two PEM texts have the same certificates, in whatever order.
fn are_the_same(one: &str, other: &str) -> bool {
    let sorted = |text: &str| {
        let found = CertificateDer::pem_slice_iter(text.as_bytes());
        let mut found: Vec<_> = found.flatten().map(|one| one.to_vec()).collect();
        found.sort();
        found
    };
    sorted(one) == sorted(other)
}

/// Whether authorities vouch for who publishes them. Who was asked is believed by the authorities of before, so that nobody else can
/// bring in new ones; and by the new ones alone as well, since with those that are not its server's nobody would ever be believed
/// again.
async fn is_its_servers(server: &str, now: &str) -> Result<()> {
    ensure!(
        stoker_pki::certificate_count(now).is_ok_and(|count| count > 0),
        "the tenant publishes no authority"
    );
    published(server, now).await.map(drop).context(
        "the tenant publishes authorities (cluster-info in kube-public) that do not vouch for its server; they are not believed",
    )
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
    use anyhow::bail;

    use super::super::stand_in::{Shown, authority, cluster_info_of, serve};
    use super::*;

    /// What a machine that believes `before` believes next.
    async fn others(server: &str, before: &str) -> Result<String> {
        let now = published(server, before).await?.authorities;
        is_its_servers(server, &now).await?;
        Ok(now)
    }

    #[tokio::test]
    async fn authorities_are_believed_only_when_the_server_is_theirs() {
        let (old, new, stranger) = (authority(), authority(), authority());
        let looked = async |text: &str| {
            let server = serve(Shown::Leaf(&old), cluster_info_of(text)).await;
            others(&server.to_string(), old.certificate()).await
        };
        let both = [old.certificate(), new.certificate()].concat();
        assert_eq!(looked(&both).await.unwrap(), both);
        let wrong = looked(stranger.certificate()).await;
        let wrong = format!("{:#}", wrong.unwrap_err());
        assert!(wrong.contains("do not vouch"), "{wrong}");
    }

    #[tokio::test]
    async fn a_machine_that_was_off_while_the_new_authority_was_made_known_believes_it_by_the_link()
    {
        let (old, new) = (authority(), authority());
        let published = [new.certificate(), old.certificate()].concat();
        let signing = serve(Shown::Linked(&new, &old), cluster_info_of(&published)).await;
        let signing = signing.to_string();
        let found = others(&signing, old.certificate()).await;
        assert_eq!(found.unwrap(), published);
        assert_eq!(others(&signing, &published).await.unwrap(), published);
        // The old one has left, and nobody vouches for the new one any more.
        let left = serve(Shown::Leaf(&new), cluster_info_of(new.certificate())).await;
        let left = left.to_string();
        assert!(others(&left, old.certificate()).await.is_err());
        let followed = others(&left, &published).await.unwrap();
        assert_eq!(followed, new.certificate());
    }

    #[test]
    fn authorities_in_another_order_are_the_same() {
        let (old, new) = (authority(), authority());
        let old_first = [old.certificate(), new.certificate()].concat();
        let new_first = [new.certificate(), old.certificate()].concat();
        assert!(are_the_same(&old_first, &new_first));
        for one in [&old, &new] {
            assert!(!are_the_same(&old_first, one.certificate()));
            assert!(!are_the_same(one.certificate(), &new_first));
        }
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
