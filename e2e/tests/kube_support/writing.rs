//! Applying and removing: what is sent, what is noticed, what fails.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::json;
use stoker_kube::{
    Change, Desired, Ledger, Observation, Writer, ready, tenant_client, watch_owned,
};
use tokio::time::timeout;

use crate::endpoint::{endpoint, watch_ours};
use crate::{MANAGER, NAMESPACE, PATIENCE, counted, objects, server};
#[tokio::test(flavor = "multi_thread")]
async fn a_second_pass_sends_nothing_and_a_fresh_ledger_stores_nothing() -> Result<()> {
    let (client, sent) = counted().await?;
    let writer = Writer::new(client, MANAGER);
    let ledger = Ledger::new();
    let first = writer.apply_all(objects("noop"), &ledger, 4).await?;
    assert!(first.iter().all(|outcome| outcome.changed));
    let versions = |outcomes: &[stoker_kube::Outcome]| -> Vec<_> {
        let version = |outcome: &stoker_kube::Outcome| {
            let object = outcome.object.as_ref().unwrap().get();
            let object: DynamicObject = serde_json::from_str(object).unwrap();
            object.resource_version().unwrap()
        };
        outcomes.iter().map(version).collect()
    };

    let before = sent.load(Ordering::Relaxed);
    let second = writer.apply_all(objects("noop"), &ledger, 4).await?;
    assert!(
        second
            .iter()
            .all(|outcome| !outcome.changed && outcome.object.is_none())
    );
    assert_eq!(
        sent.load(Ordering::Relaxed),
        before,
        "requests of a second pass"
    );

    // As after a restart of the operator: everything is sent again, nothing is stored.
    let restarted = writer.apply_all(objects("noop"), &Ledger::new(), 4).await?;
    assert_eq!(versions(&restarted), versions(&first));
    Ok(())
}

/// Our objects' changes, from a moment when the watch is open.
async fn changes(name: &str, ledger: &Ledger) -> Result<Pin<Box<impl Stream<Item = Change>>>> {
    let (client, _) = counted().await?;
    let mut watch = watch_ours(vec![
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<Deployment>(&()),
    ]);
    watch.selector = format!("test={name}");
    let stream = watch_owned(client, watch).map(|change| change.unwrap());
    let mut stream = Box::pin(stream);
    for _ in 0..ledger.keys().len() {
        let change = timeout(PATIENCE, stream.next()).await?.unwrap();
        assert_eq!(ledger.observe(&change), Observation::Echo, "{}", change.key);
    }
    Ok(stream)
}

/// The next change that is no echo.
async fn noticed(
    changes: &mut (impl Stream<Item = Change> + Unpin),
    ledger: &Ledger,
) -> Result<Change> {
    loop {
        let change = timeout(PATIENCE, changes.next()).await?.unwrap();
        if ledger.observe(&change) == Observation::Changed {
            return Ok(change);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_noticed_and_healed_and_our_own_writes_wake_nobody() -> Result<()> {
    let (client, _) = counted().await?;
    let writer = Writer::new(client.clone(), MANAGER);
    let ledger = Ledger::new();
    writer.apply_all(objects("tampered"), &ledger, 4).await?;
    let mut changes = changes("tampered", &ledger).await?;

    let admin = server().await.client().await?;
    let configs: Api<ConfigMap> = Api::namespaced(admin.clone(), NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(admin.clone(), NAMESPACE);
    let merge = |body| Patch::Merge(body);
    let params = PatchParams::default();

    // Content of a kind without a generation.
    configs
        .patch(
            "tampered",
            &params,
            &merge(json!({"data": {"a": "stolen"}})),
        )
        .await?;
    assert_eq!(
        noticed(&mut changes, &ledger).await?.key.kind(),
        "ConfigMap"
    );
    let healed = writer.apply_all(objects("tampered"), &ledger, 4).await?;
    assert_eq!(healed.iter().filter(|outcome| outcome.changed).count(), 1);
    assert_eq!(configs.get("tampered").await?.data.unwrap()["a"], "b");

    // A status is no tampering; a spec is; a label is, although it bumps no generation.
    let status = json!({"status": {"replicas": 1, "observedGeneration": 1}});
    deployments
        .patch_status("tampered", &params, &merge(status))
        .await?;
    deployments
        .patch(
            "tampered",
            &params,
            &merge(json!({"spec": {"replicas": 7}})),
        )
        .await?;
    let change = noticed(&mut changes, &ledger).await?;
    assert_eq!(
        change.metadata.generation,
        Some(2),
        "the status alone woke us"
    );
    // Replicas are not among the fields applied here, so they stay: nothing to store.
    let outcomes = writer.apply_all(objects("tampered"), &ledger, 4).await?;
    assert!(outcomes.iter().all(|outcome| !outcome.changed));
    let unlabelled = json!({"metadata": {"labels": {"e2e": null}}});
    deployments
        .patch("tampered", &params, &merge(unlabelled))
        .await?;
    assert_eq!(
        noticed(&mut changes, &ledger).await?.key.kind(),
        "Deployment"
    );
    writer.apply_all(objects("tampered"), &ledger, 4).await?;
    assert!(
        deployments
            .get("tampered")
            .await?
            .labels()
            .contains_key("e2e")
    );

    // Deletion.
    configs.delete("tampered", &DeleteParams::default()).await?;
    let change = noticed(&mut changes, &ledger).await?;
    assert!(change.deleted);
    let begun = Instant::now();
    writer.apply_all(objects("tampered"), &ledger, 4).await?;
    assert!(configs.get_opt("tampered").await?.is_some());
    println!("healed in {:?} after it was noticed", begun.elapsed());

    // What all of that sent back to us were echoes.
    let rest = timeout(Duration::from_millis(500), noticed(&mut changes, &ledger)).await;
    assert!(rest.is_err(), "{rest:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_removes_what_is_no_longer_wanted_and_leftovers_by_label() -> Result<()> {
    let (client, _) = counted().await?;
    let writer = Writer::new(client.clone(), MANAGER);
    let ledger = Ledger::new();
    writer.apply_all(objects("pruned"), &ledger, 4).await?;
    let keep = [objects("pruned")[0].key().clone()].into();
    let removed = writer.prune(&ledger, &keep).await?;
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert_eq!(writer.prune(&ledger, &keep).await?.len(), 0);

    writer
        .apply_all(objects("pruned"), &Ledger::new(), 4)
        .await?;
    let kinds = [
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Secret>(&()),
    ];
    let removed = writer
        .prune_kinds(&kinds, Some(NAMESPACE), "test=pruned", &keep)
        .await?;
    let removed: Vec<_> = removed.iter().map(ToString::to_string).collect();
    assert_eq!(removed, ["Secret default/pruned"]);
    let services = [ApiResource::erase::<Service>(&())];
    assert_eq!(
        writer
            .delete_labelled(&services, None, "test=pruned")
            .await?
            .len(),
        1
    );

    // A uid protects a namesake.
    let key = objects("pruned")[0].key().clone();
    assert!(
        !writer
            .delete(&key, Some("00000000-0000-0000-0000-000000000000"))
            .await?
    );
    assert!(writer.delete(&key, None).await?);
    assert!(!writer.delete(&key, None).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_category_that_a_person_needs() -> Result<()> {
    let (client, _) = counted().await?;
    let writer = Writer::new(client, MANAGER);
    let apply = async |object: ConfigMap| {
        writer
            .apply(&Desired::of(&object).unwrap())
            .await
            .unwrap_err()
    };
    let named = |namespace: &str, name: &str| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}})).unwrap()
    };
    assert_eq!(apply(named("missing", "a")).await.category(), "NotFound");
    assert_eq!(
        apply(named(NAMESPACE, "Not_A_Name")).await.category(),
        "Invalid"
    );

    // A namespace that a finalizer keeps from going.
    let mut namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "going"}})).unwrap();
    writer.apply(&Desired::of(&namespace)?).await?;
    namespace.metadata.finalizers = None;
    let key = Desired::of(&namespace)?.key().clone();
    assert!(writer.delete(&key, None).await?);
    let error = apply(named("going", "a")).await;
    assert_eq!(error.category(), "NamespaceTerminating");
    assert!(error.to_string().contains("ConfigMap going/a"), "{error}");

    // Another authority's certificate, and nobody at the address.
    let mut stranger = endpoint(server().await)?;
    let authority = stoker_lab::credentials::authority("stranger")?;
    let leaf = stoker_lab::credentials::client(&authority, "admin", Some("system:masters"))?;
    stranger.client_certificate = leaf.certificate.clone();
    stranger.client_key = leaf.key.as_pem().to_owned().into();
    let client = tenant_client(&stranger, Arc::new(|_, _, _| {}))?;
    let error = Writer::new(client, MANAGER)
        .apply(&objects("a")[0])
        .await
        .unwrap_err();
    assert!(
        ["Unauthorized", "TlsFailed"].contains(&error.category()),
        "{error:?}"
    );

    let mut mistaken = endpoint(server().await)?;
    mistaken.certificate_authority = authority.certificate().to_owned();
    let client = tenant_client(&mistaken, Arc::new(|_, _, _| {}))?;
    assert_eq!(ready(&client).await.unwrap_err().category(), "TlsFailed");

    let mut nobody = endpoint(server().await)?;
    nobody.address = "127.0.0.1:1".parse()?;
    let client = tenant_client(&nobody, Arc::new(|_, _, _| {}))?;
    let error = ready(&client).await.unwrap_err();
    assert_eq!(error.category(), "ConnectionRefused");
    assert!(error.is_transient());
    Ok(())
}
