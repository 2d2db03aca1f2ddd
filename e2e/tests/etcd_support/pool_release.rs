//! Retaining and purging: what stays, what goes, and that no crash leaves a half of either.

use std::time::Duration;

use anyhow::Result;
use etcd_client::{GetOptions, WatchOptions};
use jiff::SignedDuration;
use stoker_etcd::{Change, Error};

use super::clients::owner;
use super::fixture::{Fixture, denied, in_a_week, new_id};

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

/// As the operator does: what was cut off may still arrive at the pool, and is then said to have changed something meanwhile.
async fn again<T>(
    operation: impl AsyncFn() -> Result<T, stoker_etcd::Error>,
) -> Result<T, stoker_etcd::Error> {
    match operation().await {
        Err(stoker_etcd::Error::Contended { .. }) => operation().await,
        done => done,
    }
}

/// Cuts claims, retentions and purges off at random times by dropping them, then finishes.
#[tokio::test]
async fn operations_that_were_cut_off_anywhere_are_finished_by_the_next() -> Result<()> {
    let fixture = Fixture::start().await?;
    for micros in (0..20_000).step_by(400) {
        let id = new_id();
        let cut = Duration::from_micros(micros);
        let _ = tokio::time::timeout(cut, fixture.pool.claim(&id, &owner("one"))).await;
        again(async || fixture.pool.claim(&id, &owner("one")).await).await?;
        assert!(fixture.pool.claim(&id, &owner("one")).await?.is_unchanged());
        fixture
            .tenant(&id)
            .await?
            .put(format!("{}k", id.prefix()), "v", None)
            .await?;
        if micros % 800 == 0 {
            let (one, until) = (owner("one"), in_a_week());
            let _ = tokio::time::timeout(cut, fixture.pool.retain(&id, &one, until)).await;
            again(async || fixture.pool.retain(&id, &one, until).await).await?;
            assert_eq!(
                fixture.traces(&id).await,
                ["keys", "record"],
                "cut after {cut:?}"
            );
        }
        let _ = tokio::time::timeout(cut, fixture.pool.purge(&id, &owner("one"))).await;
        again(async || fixture.pool.purge(&id, &owner("one")).await).await?;
        assert_eq!(fixture.traces(&id).await, [""; 0], "cut after {cut:?}");
    }
    Ok(())
}

#[tokio::test]
async fn only_what_is_past_its_time_is_swept() -> Result<()> {
    let fixture = Fixture::start().await?;
    let (alive, kept, back, past) = (new_id(), new_id(), new_id(), new_id());
    let (now, hour) = (in_a_week(), SignedDuration::from_hours(1));
    for (id, until) in [
        (&alive, None),
        (&kept, Some(now + hour)),
        (&back, Some(now - hour)),
        (&past, Some(now)),
    ] {
        let owner = owner(id.as_str());
        fixture.pool.claim(id, &owner).await?;
        fixture.fill(id, 3).await?;
        if let Some(until) = until {
            fixture.pool.retain(id, &owner, until).await?;
        }
    }
    // This tenant returns after the sweeper looked.
    let seen = fixture.pool.owners().await?;
    fixture.pool.claim(&back, &owner(back.as_str())).await?;
    let mut purged = Vec::new();
    for (id, _) in &seen {
        if let Some(gone) = fixture.pool.purge_expired(id, now).await? {
            purged.push((id.clone(), gone.keys));
        }
    }
    assert_eq!(purged, [(past.clone(), 3)]);
    assert_eq!(fixture.traces(&past).await, [""; 0]);
    for id in [&alive, &back] {
        assert_eq!(fixture.traces(id).await, ["user", "role", "keys", "record"]);
    }
    assert_eq!(fixture.traces(&kept).await, ["keys", "record"]);
    assert_eq!(fixture.pool.purge_expired(&past, now).await?, None, "again");
    Ok(())
}

/// Half-deleted data never comes back to anyone.
#[tokio::test]
async fn a_purge_that_began_can_only_end() -> Result<()> {
    let fixture = Fixture::start().await?;
    for micros in (0..12_000).step_by(300) {
        let (id, one) = (new_id(), owner("one"));
        fixture.pool.claim(&id, &one).await?;
        fixture.fill(&id, 50).await?;
        fixture.pool.retain(&id, &one, in_a_week()).await?;
        let cut = Duration::from_micros(micros);
        let _ = tokio::time::timeout(cut, fixture.pool.purge(&id, &one)).await;
        match fixture.pool.claim(&id, &one).await {
            Ok(_) => {
                let keys = fixture.pool.usage(&id).await?.keys;
                let fresh = fixture.pool.owners().await?[0].1.retained_until.is_none();
                assert!(fresh && (keys == 50 || keys == 0), "{keys} after {cut:?}");
            }
            Err(error) => {
                assert_eq!(error.category(), "StorageIdPurging", "{error}");
                for result in [
                    fixture.pool.adopt(&id, &one).await.map(drop),
                    fixture.pool.retain(&id, &one, in_a_week()).await.map(drop),
                ] {
                    assert_eq!(result.unwrap_err().category(), "StorageIdPurging");
                }
                let ended = fixture
                    .pool
                    .purge_expired(&id, jiff::Timestamp::UNIX_EPOCH)
                    .await?;
                assert!(ended.is_some(), "a begun purge is ended before its time");
            }
        }
        fixture.pool.purge(&id, &one).await?;
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
async fn compaction_forgets_the_past_and_nothing_else() -> Result<()> {
    let fixture = Fixture::start().await?;
    let id = new_id();
    fixture.pool.claim(&id, &owner("one")).await?;
    let mut tenant = fixture.tenant(&id).await?;
    let key = format!("{}k", id.prefix());
    tenant.put(key.clone(), "old", None).await?;
    let old = fixture.pool.revision().await?;
    tenant.put(key.clone(), "new", None).await?;
    let newest = fixture.pool.revision().await?;
    assert!(newest > old);

    let at = |revision| Some(GetOptions::new().with_revision(revision));
    assert_eq!(
        tenant.get(key.clone(), at(old)).await?.kvs()[0].value(),
        b"old"
    );
    fixture.pool.compact(newest).await?;
    fixture.pool.compact(old).await?;
    assert!(
        tenant.get(key.clone(), at(old)).await.is_err(),
        "the past is forgotten"
    );
    assert_eq!(tenant.get(key, None).await?.kvs()[0].value(), b"new");
    Ok(())
}
