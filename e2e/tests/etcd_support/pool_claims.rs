//! Giving ids to tenants: what a claim makes, heals, refuses and costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use etcd_client::{Permission, Txn, TxnOp};
use futures::future::try_join_all;
use stoker_etcd::{Change, Error, Pool};
use stoker_lab::command::run;
use stoker_lab::credentials;
use stoker_lab::versions::ETCD;
use tokio::task::JoinHandle;

use super::clients::{client, owner, root_config};
use super::cluster::Cluster;
use super::fixture::{Fixture, denied, in_a_week, new_id};

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
async fn what_others_gave_a_free_id_is_taken_from_it() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (id, victim) = (new_id(), new_id());
    fixture.pool.claim(&victim, &owner("victim")).await?;
    let mut root = fixture.root.clone();
    root.role_add(id.role()).await?;
    root.role_grant_permission(id.role(), Permission::read(victim.prefix()).with_prefix())
        .await?;
    fixture.pool.claim(&id, &owner("one")).await?;
    let mut tenant = fixture.tenant(&id).await?;
    assert!(denied(&tenant.get(victim.prefix(), None).await));
    tenant.put(format!("{}k", id.prefix()), "x", None).await?;
    let again = fixture.pool.claim(&id, &owner("one")).await?;
    assert!(again.is_unchanged(), "{again:?}");
    Ok(())
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
async fn only_what_the_pool_knows_and_nobody_has_is_adopted() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (id, other) = (new_id(), owner("other"));
    // Nothing is made up: whoever asks for an id that was never, or is no more, gets none.
    for result in [
        fixture.pool.check_adoption(&id, &other).await,
        fixture.pool.adopt(&id, &other).await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NothingToAdopt { .. }), "{error}");
        assert!(!error.is_transient() && !error.is_of_pool());
    }
    assert_eq!(fixture.traces(&id).await, [""; 0]);

    fixture.pool.claim(&id, &owner("one")).await?;
    let error = fixture.pool.check_adoption(&id, &other).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyOwned { .. }), "{error}");
    fixture.pool.check_adoption(&id, &owner("one")).await?;
    fixture.pool.retain(&id, &owner("one"), in_a_week()).await?;
    fixture.pool.check_adoption(&id, &other).await?;
    let (_, record) = fixture.pool.owners().await?.remove(0);
    assert_eq!(record.owner, owner("one"), "a look changes nothing");
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

    let neighbour = Neighbour::start(&cluster, &pool).await?;
    for count in [10, 100] {
        let mut times = claim_at_once(&pool, count).await?;
        times.sort();
        let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{count} claims at once: median {median:?}, last {last:?}");
    }
    let (writes, outdated) = neighbour.stop().await?;
    println!("a neighbour meanwhile: {writes} writes, {outdated} asked to try again");

    let owners = pool.owners().await?;
    assert_eq!(owners.len(), 20 + 1 + 10 + 100);
    let begun = Instant::now();
    for (id, record) in &owners[..20] {
        assert!(pool.claim(id, &record.owner).await?.is_unchanged());
    }
    println!("claim of a complete id: {:?}", begun.elapsed() / 20);
    Ok(())
}

async fn claim_at_once(pool: &Pool, count: usize) -> Result<Vec<Duration>> {
    let begun = Instant::now();
    let claims = (0..count).map(|n| {
        let (pool, id) = (pool.clone(), new_id());
        async move {
            pool.claim(&id, &owner(&format!("at-once-{count}-{n}")))
                .await?;
            assert_eq!(pool.usage(&id).await?.keys, 0);
            Ok::<_, Error>(begun.elapsed())
        }
    });
    Ok(try_join_all(claims).await?)
}

/// A tenant that writes all the time, without retries. etcd fails requests that are under way when
/// any user or role changes; API servers' clients repeat those.
struct Neighbour {
    writing: JoinHandle<Result<(usize, usize)>>,
    stop: Arc<AtomicBool>,
}

impl Neighbour {
    async fn start(cluster: &Cluster, pool: &Pool) -> Result<Self> {
        let id = new_id();
        pool.claim(&id, &owner("neighbour")).await?;
        let leaf = credentials::client(cluster.authority(), id.user(), None)?;
        let mut tenant = client(&cluster.addresses()[0], cluster.authority(), Some(&leaf)).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let writing = tokio::spawn(async move {
            let (mut writes, mut outdated) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                match tenant.put(format!("{}k", id.prefix()), "", None).await {
                    Ok(_) => writes += 1,
                    Err(error) if error.to_string().contains("auth store is old") => outdated += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok((writes, outdated))
        });
        Ok(Self { writing, stop })
    }

    async fn stop(self) -> Result<(usize, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        self.writing.await?
    }
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
        first?;
        second?;
        assert!(fixture.pool.claim(&id, &one).await?.is_unchanged());

        let id = new_id();
        let (first, second) =
            tokio::join!(fixture.pool.claim(&id, &one), fixture.pool.claim(&id, &two));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    }
    Ok(())
}
