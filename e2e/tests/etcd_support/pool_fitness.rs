//! Whether a pool can be shared, and the name of every reason why not.

use std::time::Instant;

use anyhow::Result;
use etcd_client::UserAddOptions;
use stoker_etcd::{Pool, PoolConfig};
use stoker_lab::bare::BareEtcd;
use stoker_lab::command::run;
use stoker_lab::credentials;
use stoker_lab::versions::{ETCD, ETCD_BELOW_FLOOR};

use super::clients::{owner, pool_config, root_config};
use super::cluster::Cluster;
use super::fixture::{Fixture, address, authority, new_id};

#[tokio::test]
async fn a_pool_that_is_fit_says_what_it_is() -> Result<()> {
    let fixture = Fixture::start().await?;
    let facts = fixture.pool.check().await?;
    assert_eq!(facts.members.len(), 1);
    let member = &facts.members[0];
    assert_eq!(format!("v{}", member.version), ETCD);
    assert_eq!(facts.cluster_version, member.version);
    assert!(member.is_leader && member.database_size > 0 && member.database_in_use > 0);
    assert_eq!(member.database_quota, Some(2 * 1024 * 1024 * 1024));
    assert!(
        facts.unreachable.is_empty() && member.alarms.is_empty(),
        "{facts:?}"
    );
    Ok(())
}

async fn check_fails(config: &PoolConfig, category: &str, advice: &str) {
    let error = match Pool::connect(config).await {
        Ok(pool) => pool.check().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.category(), category, "{error} {error:?}");
    assert!(error.to_string().contains(advice), "{error}");
    assert!(!format!("{error} {error:?}").contains("PRIVATE"), "{error}");
}

fn only(config: &PoolConfig, endpoint: &str) -> PoolConfig {
    PoolConfig {
        endpoints: vec![endpoint.to_owned()],
        ..config.clone()
    }
}

#[tokio::test]
async fn unfit_endpoints_and_certificates_are_named() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (addresses, authority) = ([address(&fixture.etcd)], authority(&fixture.etcd));
    let good = root_config(&addresses, authority)?;
    let none = PoolConfig {
        endpoints: vec![],
        ..good.clone()
    };
    check_fails(&none, "InvalidEndpoints", "at least one").await;
    for endpoint in [
        "https://127.0.0.1:1",
        "127.0.0.1",
        "127.0.0.1:x",
        ":1",
        "a/b:1",
    ] {
        check_fails(&only(&good, endpoint), "InvalidEndpoints", "host:port").await;
    }
    let closed = only(&good, "127.0.0.1:1");
    check_fails(&closed, "ConnectionRefused", "127.0.0.1:1 refuses").await;
    let nowhere = only(&good, "no-such-host.invalid:1");
    check_fails(&nowhere, "Unreachable", "check its name").await;

    let stranger = credentials::authority("stranger")?;
    let wrong_ca = PoolConfig {
        certificate_authority: stranger.certificate().to_owned(),
        ..good.clone()
    };
    check_fails(&wrong_ca, "UntrustedCertificate", "check the pool's CA").await;
    let leaf = credentials::client(&stranger, "root", None)?;
    let wrong_client = pool_config(&addresses, authority, &leaf);
    check_fails(&wrong_client, "ClientCertificateRefused", "trusted CA").await;
    let other_key = PoolConfig {
        client_key: leaf.key.as_pem().to_owned().into(),
        ..good.clone()
    };
    check_fails(&other_key, "InvalidCredentials", "belong together").await;
    let empty_ca = PoolConfig {
        certificate_authority: String::new(),
        ..good.clone()
    };
    check_fails(&empty_ca, "InvalidCredentials", "PEM").await;
    let garbage = PoolConfig {
        client_certificate: "garbage".into(),
        ..good
    };
    check_fails(&garbage, "InvalidCredentials", "PEM").await;
    Ok(())
}

#[tokio::test]
async fn a_user_without_root_rights_is_named() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let (addresses, authority) = ([address(&fixture.etcd)], authority(&fixture.etcd));
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    for user in ["nobody", id.user()] {
        let leaf = fixture.etcd.client_certificate(user)?;
        let config = pool_config(&addresses, authority, &leaf);
        check_fails(&config, "NotRoot", "role root").await;
        let pool = Pool::connect(&config).await?;
        let error = pool.claim(&new_id(), &owner("two")).await.unwrap_err();
        assert_eq!(error.category(), "NotRoot", "{error}");
    }
    assert_eq!(fixture.pool.owners().await?.len(), 1);

    let no_password = Some(UserAddOptions::new().with_no_pwd());
    fixture.root.user_add("other-root", "", no_password).await?;
    fixture.root.user_grant_role("other-root", "root").await?;
    let leaf = fixture.etcd.client_certificate("other-root")?;
    let config = pool_config(&addresses, authority, &leaf);
    Pool::connect(&config).await?.check().await?;
    Ok(())
}

#[tokio::test]
async fn a_pool_with_authentication_off_is_refused() -> Result<()> {
    let fixture = Fixture::start().await?;
    let config = root_config(&[address(&fixture.etcd)], authority(&fixture.etcd))?;
    run(fixture.etcd.etcdctl().args(["auth", "disable"])).await?;
    check_fails(&config, "AuthDisabled", "auth enable").await;
    let id = new_id();
    let error = fixture.pool.claim(&id, &owner("two")).await.unwrap_err();
    assert_eq!(error.category(), "AuthDisabled");
    let traces = fixture.traces(&id).await;
    assert!(
        !traces.contains(&"user") && !traces.contains(&"role"),
        "{traces:?}"
    );
    run(fixture.etcd.etcdctl().args(["auth", "enable"])).await?;
    fixture.pool.claim(&id, &owner("two")).await?;
    Ok(())
}

#[tokio::test]
async fn a_pool_that_was_down_is_used_again() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    fixture.etcd.kill();
    let error = fixture.pool.claim(&id, &owner("one")).await.unwrap_err();
    assert_eq!(
        (error.category(), error.is_transient()),
        ("ConnectionRefused", true)
    );
    fixture.etcd.restart().await?;
    assert!(fixture.pool.claim(&id, &owner("one")).await?.is_unchanged());
    Ok(())
}

#[tokio::test]
async fn a_version_below_the_floor_is_refused_with_the_reason() -> Result<()> {
    let etcd = BareEtcd::start_secured(ETCD_BELOW_FLOOR).await?;
    let config = root_config(&[address(&etcd)], authority(&etcd))?;
    let error = Pool::connect(&config).await?.check().await.unwrap_err();
    assert_eq!(
        (error.category(), error.is_transient()),
        ("VersionBelowFloor", false)
    );
    let message = error.to_string();
    for part in [
        ETCD_BELOW_FLOOR.trim_start_matches('v'),
        "3.6.14",
        "other tenants' keys",
    ] {
        assert!(message.contains(part), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn endpoints_of_two_clusters_are_told_apart() -> Result<()> {
    let one = Cluster::start(ETCD, 1).await?;
    let other = Cluster::start_with(ETCD, 1, one.copy_of_authority()?).await?;
    let addresses = [one.addresses(), other.addresses()].concat();
    let config = root_config(&addresses, one.authority())?;
    let error = Pool::connect(&config).await?.check().await.unwrap_err();
    assert_eq!(error.category(), "DifferentClusters", "{error}");
    Ok(())
}

#[tokio::test]
async fn a_pool_of_three_goes_on_without_one_member() -> Result<()> {
    let mut cluster = Cluster::start(ETCD, 3).await?;
    let pool = Pool::connect(&root_config(&cluster.addresses(), cluster.authority())?).await?;
    let facts = pool.check().await?;
    assert_eq!((facts.members.len(), facts.unreachable.len()), (3, 0));
    assert_eq!(
        facts
            .members
            .iter()
            .filter(|member| member.is_leader)
            .count(),
        1
    );

    let id = new_id();
    pool.claim(&id, &owner("one")).await?;
    cluster.kill(0);
    let begun = Instant::now();
    pool.claim(&new_id(), &owner("two")).await?;
    println!(
        "claim with the connected member dead: {:?}",
        begun.elapsed()
    );
    assert!(pool.claim(&id, &owner("one")).await?.is_unchanged());
    let facts = pool.check().await?;
    assert_eq!((facts.members.len(), facts.unreachable.len()), (2, 1));
    assert_eq!(facts.unreachable[0].category(), "ConnectionRefused");

    cluster.kill(1);
    let error = pool.claim(&new_id(), &owner("three")).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    println!("without a majority: {error}");
    Ok(())
}
