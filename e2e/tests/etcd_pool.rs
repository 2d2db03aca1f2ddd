//! The pool against real etcd: giving, healing, retaining and purging tenants, and every way in
//! which a pool can be unfit.

#[path = "etcd_support/clients.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod clients;
#[path = "etcd_support/cluster.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod cluster;

use std::time::{Duration, Instant};

use anyhow::Result;
use clients::{client, owner, pool_config, root_config};
use cluster::Cluster;
use etcd_client::{Client, GetOptions, Permission, Txn, TxnOp, UserAddOptions, WatchOptions};
use futures::future::{join_all, try_join_all};
use jiff::{SignedDuration, Timestamp};
use stoker_etcd::{Change, Error, Pool, StorageId};
use stoker_lab::bare::BareEtcd;
use stoker_lab::command::run;
use stoker_lab::credentials;
use stoker_lab::versions::{ETCD, ETCD_BELOW_FLOOR};
use stoker_pki::Authority;

/// One secured etcd, its pool and a root client.
struct Fixture {
    etcd: BareEtcd,
    pool: Pool,
    root: Client,
}

impl Fixture {
    async fn start() -> Result<Self> {
        let etcd = BareEtcd::start_secured(ETCD).await?;
        let pool = Pool::connect(&root_config(&[address(&etcd)], authority(&etcd))?).await?;
        let leaf = etcd.client_certificate("root")?;
        let root = client(&address(&etcd), authority(&etcd), Some(&leaf)).await?;
        Ok(Self { etcd, pool, root })
    }

    async fn tenant(&self, id: &StorageId) -> Result<Client> {
        let leaf = self.etcd.client_certificate(id.user())?;
        client(&address(&self.etcd), authority(&self.etcd), Some(&leaf)).await
    }

    async fn revision(&self) -> i64 {
        let found = self.root.clone().get("nothing", None).await.unwrap();
        found.header().unwrap().revision()
    }

    async fn fill(&self, id: &StorageId, keys: usize) -> Result<()> {
        let keys: Vec<_> = (0..keys)
            .map(|n| format!("{}key-{n:06}", id.prefix()))
            .collect();
        for page in keys.chunks(100) {
            let puts: Vec<_> = page
                .iter()
                .map(|key| TxnOp::put(key.as_str(), "value", None))
                .collect();
            self.root.clone().txn(Txn::new().and_then(puts)).await?;
        }
        Ok(())
    }

    /// Whether etcd knows anything of the id at all.
    async fn traces(&self, id: &StorageId) -> Vec<&'static str> {
        let mut root = self.root.clone();
        let mut traces = Vec::new();
        if root.user_get(id.user()).await.is_ok() {
            traces.push("user");
        }
        if root.role_get(id.role()).await.is_ok() {
            traces.push("role");
        }
        if self.pool.usage(id).await.unwrap().keys > 0 {
            traces.push("keys");
        }
        if self
            .pool
            .owners()
            .await
            .unwrap()
            .iter()
            .any(|(owned, _)| owned == id)
        {
            traces.push("record");
        }
        traces
    }
}

fn address(etcd: &BareEtcd) -> String {
    etcd.endpoint().trim_start_matches("https://").to_owned()
}

fn authority(etcd: &BareEtcd) -> &Authority {
    etcd.authority().expect("started secured")
}

fn new_id() -> StorageId {
    StorageId::random().unwrap()
}

fn in_a_week() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap() + SignedDuration::from_hours(168)
}

fn denied<T>(result: &Result<T, etcd_client::Error>) -> bool {
    matches!(result, Err(etcd_client::Error::GRpcStatus(status))
        if status.message().contains("permission denied"))
}

#[tokio::test]
async fn a_claimed_tenant_reaches_its_own_keys_and_no_others() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (one, other) = (new_id(), new_id());
    let claim = fixture.pool.claim(&one, &owner("one")).await?;
    assert_eq!(
        claim.changes,
        [
            Change::OwnerRecorded,
            Change::RoleCreated,
            Change::UserCreated,
            Change::RangeGranted,
            Change::RoleAttached
        ]
    );
    fixture.pool.claim(&other, &owner("other")).await?;

    let mut tenant = fixture.tenant(&one).await?;
    tenant.put(format!("{}a", one.prefix()), "1", None).await?;
    tenant
        .put(format!("{}\u{10ffff}", one.prefix()), "2", None)
        .await?;
    assert_eq!(fixture.pool.usage(&one).await?.keys, 2);
    for key in [
        other.prefix(),
        one.range_end(),
        format!("/{one}"),
        "stoker.dev/owners/".into(),
    ] {
        assert!(
            denied(&tenant.put(key.as_str(), "3", None).await),
            "put {key}"
        );
        assert!(denied(&tenant.get(key.as_str(), None).await), "get {key}");
    }
    assert_eq!(fixture.pool.usage(&other).await?.keys, 0);
    Ok(())
}

#[tokio::test]
async fn a_second_claim_writes_nothing() -> Result<()> {
    let fixture = Fixture::start().await?;
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    let (revision, users) = (fixture.revision().await, auth_revision(&fixture).await);
    let claim = fixture.pool.claim(&id, &owner("one")).await?;
    assert!(claim.is_unchanged(), "{claim:?}");
    assert_eq!(fixture.revision().await, revision);
    assert_eq!(
        auth_revision(&fixture).await,
        users,
        "authentication was written"
    );
    Ok(())
}

/// The counter that etcd raises with every change of users, roles and permissions.
async fn auth_revision(fixture: &Fixture) -> String {
    let status = run(fixture.etcd.etcdctl().args(["auth", "status"]))
        .await
        .unwrap();
    status
        .lines()
        .find(|line| line.starts_with("AuthRevision"))
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn drift_is_found_and_healed() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (id, victim) = (new_id(), new_id());
    fixture.pool.claim(&id, &owner("one")).await?;
    fixture.pool.claim(&victim, &owner("victim")).await?;
    let mut root = fixture.root.clone();
    let mut tenant = fixture.tenant(&id).await?;
    let (own, foreign) = (format!("{}k", id.prefix()), format!("{}k", victim.prefix()));

    root.role_grant_permission(id.role(), Permission::read_write("\0").with_from_key())
        .await?;
    root.role_grant_permission(id.role(), Permission::read(victim.prefix()).with_prefix())
        .await?;
    root.role_grant_permission(id.role(), Permission::read("compact_rev_key"))
        .await?;
    root.role_grant_permission(id.role(), Permission::read(id.prefix()).with_prefix())
        .await?;
    root.user_grant_role(id.user(), victim.role()).await?;
    root.user_grant_role(id.user(), "root").await?;
    assert!(
        tenant.put(foreign.as_str(), "x", None).await.is_ok(),
        "the drift is real"
    );
    let claim = fixture.pool.claim(&id, &owner("one")).await?;
    assert_eq!(claim.changes.len(), 6, "{claim:?}");
    assert!(denied(&tenant.put(foreign.as_str(), "x", None).await));
    assert!(denied(&tenant.get("compact_rev_key", None).await));
    tenant.put(own.as_str(), "x", None).await?;

    for (what, change) in [
        ("user", root.user_delete(id.user()).await.is_ok()),
        ("role", root.role_delete(victim.role()).await.is_ok()),
    ] {
        assert!(change, "{what}");
    }
    let claim = fixture.pool.claim(&id, &owner("one")).await?;
    assert_eq!(claim.changes, [Change::UserCreated, Change::RoleAttached]);
    let claim = fixture.pool.claim(&victim, &owner("victim")).await?;
    // Deleting a role takes it from its users, too.
    assert_eq!(
        claim.changes,
        [
            Change::RoleCreated,
            Change::RangeGranted,
            Change::RoleAttached
        ]
    );
    root.user_revoke_role(id.user(), id.role()).await?;
    assert!(denied(&tenant.put(own.as_str(), "x", None).await));
    let claim = fixture.pool.claim(&id, &owner("one")).await?;
    assert_eq!(claim.changes, [Change::RoleAttached]);
    tenant.put(own.as_str(), "x", None).await?;
    Ok(())
}

#[tokio::test]
async fn an_id_has_one_owner() -> Result<()> {
    let fixture = Fixture::start().await?;
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    fixture.fill(&id, 3).await?;
    let mut other = owner("other");
    for result in [
        fixture.pool.claim(&id, &other).await.map(drop),
        fixture.pool.adopt(&id, &other).await.map(drop),
        fixture
            .pool
            .retain(&id, &other, in_a_week())
            .await
            .map(drop),
        fixture.pool.purge(&id, &other).await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::AlreadyOwned { .. }), "{error}");
        assert!(error.to_string().contains("tenants/one"), "{error}");
        assert_eq!(
            (error.category(), error.is_transient()),
            ("StorageIdOwned", false)
        );
    }
    assert_eq!(
        fixture.traces(&id).await,
        ["user", "role", "keys", "record"]
    );

    // After the management cluster came back from backup, the same tenant has another uid.
    let restored = stoker_etcd::Owner {
        uid: "new".into(),
        ..owner("one")
    };
    let claim = fixture.pool.claim(&id, &restored).await?;
    assert_eq!(claim.changes, [Change::OwnerUpdated]);

    // A deleted owner's data goes to someone else only when asked for by name.
    fixture.pool.retain(&id, &restored, in_a_week()).await?;
    other.management_cluster = Some("elsewhere".into());
    let error = fixture.pool.claim(&id, &other).await.unwrap_err();
    assert!(error.to_string().contains("data kept until"), "{error}");
    let claim = fixture.pool.adopt(&id, &other).await?;
    assert_eq!(
        claim.changes[..2],
        [Change::OwnerUpdated, Change::RetentionEnded]
    );
    let (_, record) = fixture.pool.owners().await?.remove(0);
    assert_eq!((record.owner, record.retained_until), (other, None));
    assert_eq!(fixture.pool.usage(&id).await?.keys, 3);
    Ok(())
}

#[tokio::test]
async fn retained_data_stays_and_no_certificate_reaches_it() -> Result<()> {
    let fixture = Fixture::start().await?;
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    let mut tenant = fixture.tenant(&id).await?;
    tenant.put(format!("{}k", id.prefix()), "v", None).await?;

    let until = in_a_week();
    let retained = fixture.pool.retain(&id, &owner("one"), until).await?;
    assert_eq!(retained.until, Some(until));
    let later = until + SignedDuration::from_hours(1);
    let again = fixture.pool.retain(&id, &owner("one"), later).await?;
    assert_eq!(again.until, Some(until), "the first time counts");

    // The connection that was open, and a new one with the same certificate.
    assert!(denied(&tenant.get(format!("{}k", id.prefix()), None).await));
    assert!(denied(
        &fixture
            .tenant(&id)
            .await?
            .get(format!("{}k", id.prefix()), None)
            .await
    ));
    assert!(denied(
        &tenant.put(format!("{}k", id.prefix()), "w", None).await
    ));
    assert_eq!(fixture.traces(&id).await, ["keys", "record"]);
    let owners = fixture.pool.owners().await?;
    assert_eq!(owners[0].1.retained_until, Some(until));

    let claim = fixture.pool.claim(&id, &owner("one")).await?;
    assert_eq!(claim.changes[0], Change::RetentionEnded);
    let found = fixture
        .tenant(&id)
        .await?
        .get(format!("{}k", id.prefix()), None)
        .await?;
    assert_eq!(found.kvs()[0].value(), b"v");

    let unknown = fixture.pool.retain(&new_id(), &owner("x"), until).await?;
    assert_eq!(unknown.until, None);
    Ok(())
}

#[tokio::test]
async fn a_purge_leaves_nothing_and_touches_no_neighbour() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (id, neighbour) = (new_id(), new_id());
    for (id, name) in [(&id, "one"), (&neighbour, "neighbour")] {
        fixture.pool.claim(id, &owner(name)).await?;
    }
    fixture.fill(&id, 2500).await?;
    fixture.fill(&neighbour, 10).await?;
    // Keys that only look like the tenant's.
    let mut root = fixture.root.clone();
    for key in [
        format!("/{id}"),
        id.range_end(),
        format!("{id}/x"),
        format!("//{id}/x"),
    ] {
        root.put(key, "", None).await?;
    }
    let mut tenant = fixture.tenant(&id).await?;

    assert_eq!(fixture.pool.purge(&id, &owner("one")).await?.keys, 2500);
    assert_eq!(fixture.traces(&id).await, [""; 0]);
    assert_eq!(fixture.pool.usage(&neighbour).await?.keys, 10);
    assert_eq!(
        root.get(
            "\0",
            Some(GetOptions::new().with_from_key().with_count_only())
        )
        .await?
        .count(),
        10 + 4 + 1
    );
    assert!(denied(
        &tenant.put(format!("{}k", id.prefix()), "v", None).await
    ));
    assert_eq!(
        fixture.pool.purge(&id, &owner("one")).await?.keys,
        0,
        "again"
    );
    assert_eq!(
        fixture.pool.purge(&new_id(), &owner("never")).await?.keys,
        0
    );
    Ok(())
}

/// Everything a purge does, undone step by step: whatever part was done when the operator died,
/// the next purge ends it.
#[tokio::test]
async fn a_purge_that_was_cut_off_ends_right() -> Result<()> {
    let fixture = Fixture::start().await?;
    for steps in 0..=4 {
        let id = new_id();
        fixture.pool.claim(&id, &owner("one")).await?;
        fixture.fill(&id, 1200).await?;
        let mut root = fixture.root.clone();
        if steps > 0 {
            root.user_delete(id.user()).await?;
        }
        if steps > 1 {
            root.role_delete(id.role()).await?;
        }
        if steps > 2 {
            root.delete(format!("{}key-000000", id.prefix()), None)
                .await?;
        }
        if steps > 3 {
            let all = etcd_client::DeleteOptions::new().with_prefix();
            root.delete(id.prefix(), Some(all)).await?;
        }
        fixture.pool.purge(&id, &owner("one")).await?;
        assert_eq!(fixture.traces(&id).await, [""; 0], "after {steps} steps");
    }
    Ok(())
}

/// Cuts claims, retentions and purges off at random times by dropping them, then finishes.
#[tokio::test]
async fn operations_that_were_cut_off_anywhere_are_finished_by_the_next() -> Result<()> {
    let fixture = Fixture::start().await?;
    for micros in (0..20_000).step_by(400) {
        let id = new_id();
        let cut = Duration::from_micros(micros);
        let _ = tokio::time::timeout(cut, fixture.pool.claim(&id, &owner("one"))).await;
        fixture.pool.claim(&id, &owner("one")).await?;
        assert!(fixture.pool.claim(&id, &owner("one")).await?.is_unchanged());
        fixture
            .tenant(&id)
            .await?
            .put(format!("{}k", id.prefix()), "v", None)
            .await?;
        if micros % 800 == 0 {
            let (one, until) = (owner("one"), in_a_week());
            let _ = tokio::time::timeout(cut, fixture.pool.retain(&id, &one, until)).await;
            fixture.pool.retain(&id, &one, until).await?;
            assert_eq!(
                fixture.traces(&id).await,
                ["keys", "record"],
                "cut after {cut:?}"
            );
        }
        let _ = tokio::time::timeout(cut, fixture.pool.purge(&id, &owner("one"))).await;
        fixture.pool.purge(&id, &owner("one")).await?;
        assert_eq!(fixture.traces(&id).await, [""; 0], "cut after {cut:?}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_without_an_owner_are_never_deleted() -> Result<()> {
    let fixture = Fixture::start().await?;
    let id = new_id();
    fixture.fill(&id, 5).await?;
    let error = fixture.pool.purge(&id, &owner("one")).await.unwrap_err();
    assert!(matches!(error, Error::Unowned { keys: 5, .. }), "{error}");
    assert_eq!(fixture.pool.usage(&id).await?.keys, 5);

    let damaged = new_id();
    fixture
        .root
        .clone()
        .put(stoker_etcd::owner::owner_key(&damaged), "{", None)
        .await?;
    fixture.fill(&damaged, 5).await?;
    let error = fixture
        .pool
        .purge(&damaged, &owner("one"))
        .await
        .unwrap_err();
    assert_eq!(error.category(), "OwnerRecordDamaged");
    assert_eq!(fixture.pool.usage(&damaged).await?.keys, 5);
    let error = fixture
        .pool
        .claim(&damaged, &owner("one"))
        .await
        .unwrap_err();
    assert_eq!(error.category(), "OwnerRecordDamaged");

    let good = new_id();
    fixture.pool.claim(&good, &owner("good")).await?;
    let owners = fixture.pool.owners().await?;
    assert_eq!(owners.len(), 1, "a damaged record does not hide the others");
    Ok(())
}

#[tokio::test]
async fn every_owner_is_listed_across_pages() -> Result<()> {
    let fixture = Fixture::start().await?;
    let record =
        r#"{"owner":{"namespace":"n","name":"m","uid":"u"},"claimedAt":"2026-11-21T05:00:00Z"}"#;
    let mut ids: Vec<_> = (0..2300).map(|_| new_id()).collect();
    ids.sort();
    for page in ids.chunks(100) {
        let key = stoker_etcd::owner::owner_key;
        let puts: Vec<_> = page
            .iter()
            .map(|id| TxnOp::put(key(id), record, None))
            .collect();
        fixture.root.clone().txn(Txn::new().and_then(puts)).await?;
    }
    let owners: Vec<_> = fixture
        .pool
        .owners()
        .await?
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(owners, ids);
    Ok(())
}

/// A watch is authorised once, when it is made. Known; closed by stopping the pods first.
#[tokio::test]
async fn an_open_watch_outlives_the_tenant_and_sees_nothing_of_others() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (id, next) = (new_id(), new_id());
    fixture.pool.claim(&id, &owner("one")).await?;
    let mut tenant = fixture.tenant(&id).await?;
    let all = WatchOptions::new().with_prefix();
    let mut watch = tenant.watch(id.prefix(), Some(all)).await?;
    assert!(watch.message().await?.unwrap().created());
    fixture.pool.purge(&id, &owner("one")).await?;
    // The same tenant comes back: another id.
    fixture.pool.claim(&next, &owner("one")).await?;
    fixture.fill(&next, 10).await?;
    let seen = tokio::time::timeout(Duration::from_millis(500), watch.message()).await;
    assert!(seen.is_err(), "{seen:?}");
    let all = WatchOptions::new().with_prefix();
    let mut again = tenant.watch(id.prefix(), Some(all)).await?;
    assert!(
        again.message().await?.unwrap().canceled(),
        "a new watch is refused"
    );
    Ok(())
}

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

async fn check_fails(config: &stoker_etcd::PoolConfig, category: &str, advice: &str) {
    let error = match Pool::connect(config).await {
        Ok(pool) => pool.check().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.category(), category, "{error} {error:?}");
    assert!(error.to_string().contains(advice), "{error}");
    assert!(!format!("{error} {error:?}").contains("PRIVATE"), "{error}");
}

#[tokio::test]
async fn every_way_to_be_unfit_is_named() -> Result<()> {
    let mut fixture = Fixture::start().await?;
    let (address, authority) = (address(&fixture.etcd), authority(&fixture.etcd));
    let good = root_config(&[address.clone()], authority)?;
    let with = |endpoint: &str| stoker_etcd::PoolConfig {
        endpoints: vec![endpoint.to_owned()],
        ..good.clone()
    };

    check_fails(
        &stoker_etcd::PoolConfig {
            endpoints: vec![],
            ..good.clone()
        },
        "InvalidEndpoints",
        "at least one",
    )
    .await;
    for endpoint in [
        "https://127.0.0.1:1",
        "127.0.0.1",
        "127.0.0.1:x",
        ":1",
        "a/b:1",
    ] {
        check_fails(&with(endpoint), "InvalidEndpoints", "host:port").await;
    }
    check_fails(
        &with("127.0.0.1:1"),
        "ConnectionRefused",
        "127.0.0.1:1 refuses",
    )
    .await;
    check_fails(
        &with("no-such-host.invalid:1"),
        "Unreachable",
        "check its name",
    )
    .await;

    let stranger = credentials::authority("stranger")?;
    let wrong_ca = stoker_etcd::PoolConfig {
        certificate_authority: stranger.certificate().to_owned(),
        ..good.clone()
    };
    check_fails(&wrong_ca, "UntrustedCertificate", "check the pool's CA").await;
    let wrong_name = with(&address.replace("127.0.0.1", "127.0.0.2"));
    assert!(
        matches!(
            Pool::connect(&wrong_name).await?.check().await,
            Err(Error::ConnectionRefused { .. })
        ),
        "etcd listens on 127.0.0.1 only"
    );
    let wrong_client = credentials::client(&stranger, "root", None)?;
    let wrong_client = pool_config(&[address.clone()], authority, &wrong_client);
    check_fails(&wrong_client, "ClientCertificateRefused", "trusted CA").await;
    let garbage = stoker_etcd::PoolConfig {
        client_certificate: "garbage".into(),
        ..good.clone()
    };
    check_fails(&garbage, "InvalidCredentials", "PEM").await;

    let nobody = pool_config(
        &[address.clone()],
        authority,
        &fixture.etcd.client_certificate("nobody")?,
    );
    check_fails(&nobody, "NotRoot", "role root").await;
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    let tenant = fixture.etcd.client_certificate(id.user())?;
    let tenant = pool_config(&[address.clone()], authority, &tenant);
    check_fails(&tenant, "NotRoot", "role root").await;
    let error = Pool::connect(&tenant)
        .await?
        .claim(&new_id(), &owner("two"))
        .await
        .unwrap_err();
    assert_eq!(error.category(), "NotRoot");
    fixture
        .root
        .user_add("other-root", "", Some(UserAddOptions::new().with_no_pwd()))
        .await?;
    fixture.root.user_grant_role("other-root", "root").await?;
    let other = fixture.etcd.client_certificate("other-root")?;
    Pool::connect(&pool_config(&[address.clone()], authority, &other))
        .await?
        .check()
        .await?;

    run(fixture.etcd.etcdctl().args(["auth", "disable"])).await?;
    check_fails(&good, "AuthDisabled", "auth enable").await;
    let error = fixture
        .pool
        .claim(&new_id(), &owner("two"))
        .await
        .unwrap_err();
    assert_eq!(error.category(), "AuthDisabled");

    fixture.etcd.kill();
    let error = fixture
        .pool
        .claim(&new_id(), &owner("two"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.category(), error.is_transient()),
        ("ConnectionRefused", true)
    );
    fixture.etcd.restart().await?;
    run(fixture.etcd.etcdctl().args(["auth", "enable"])).await?;
    fixture.pool.claim(&new_id(), &owner("two")).await?;
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

/// Real fsync, as a tenant's birth meets it. Figures, not limits; only wrong results fail.
#[tokio::test]
async fn many_claims_at_once_all_succeed() -> Result<()> {
    let cluster = Cluster::start(ETCD, 1).await?;
    let pool = Pool::connect(&root_config(&cluster.addresses(), cluster.authority())?).await?;
    let mut alone = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        pool.claim(&new_id(), &owner(&format!("alone-{n}"))).await?;
        alone.push(begun.elapsed());
    }
    alone.sort();
    println!(
        "claim alone: median {:?}, slowest {:?} of {}",
        alone[10],
        alone[19],
        alone.len()
    );

    // A neighbour that writes all the time: etcd fails requests that meet a change of users.
    let neighbour = new_id();
    pool.claim(&neighbour, &owner("neighbour")).await?;
    for count in [10, 100] {
        let ids: Vec<_> = (0..count).map(|_| new_id()).collect();
        let begun = Instant::now();
        let claims = ids.iter().enumerate().map(|(n, id)| {
            let pool = pool.clone();
            let owner = owner(&format!("at-once-{count}-{n}"));
            async move {
                pool.claim(id, &owner).await?;
                Ok::<_, Error>(begun.elapsed())
            }
        });
        let mut times = try_join_all(claims).await?;
        times.sort();
        println!(
            "{count} claims at once: median {:?}, last {:?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        for claim in join_all(ids.iter().map(|id| pool.usage(id))).await {
            assert_eq!(claim?.keys, 0);
        }
    }
    let owners = pool.owners().await?;
    assert_eq!(owners.len(), 20 + 1 + 10 + 100);
    let begun = Instant::now();
    for (id, record) in &owners[..20] {
        assert!(pool.claim(id, &record.owner).await?.is_unchanged());
    }
    println!("claim of a complete id: {:?}", begun.elapsed() / 20);
    Ok(())
}

/// Two operators claim the same new id: one owner, and both claims succeed for the same tenant.
#[tokio::test]
async fn the_same_claim_twice_at_once_is_one_claim() -> Result<()> {
    let fixture = Fixture::start().await?;
    for _ in 0..20 {
        let id = new_id();
        let (one, two) = (owner("one"), owner("two"));
        let (first, second) =
            tokio::join!(fixture.pool.claim(&id, &one), fixture.pool.claim(&id, &one));
        (first?, second?);
        assert!(fixture.pool.claim(&id, &one).await?.is_unchanged());

        let id = new_id();
        let (first, second) =
            tokio::join!(fixture.pool.claim(&id, &one), fixture.pool.claim(&id, &two));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    }
    Ok(())
}
