//! `stoker-kube` against a real API server: applies, watches, status, the lease.

#![expect(clippy::unwrap_used, reason = "what these functions do is test")]

#[path = "kube_support/endpoint.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod endpoint;
#[path = "kube_support/stalling_proxy.rs"]
mod stalling_proxy;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use endpoint::{connections_to, eleven_kinds, endpoint, watch_ours};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::json;
use stalling_proxy::{Network, StallingProxy};
use stoker_api::v1alpha1::{DataStore, DataStoreStatus};
use stoker_kube::{
    Change, Desired, Election, Error, Events, Ledger, Observation, Writer, conditions, ready,
    tenant_client, watch_owned, write_status,
};
use stoker_lab::bare::BareApiServer;
use tokio::sync::OnceCell;
use tokio::time::timeout;

const NAMESPACE: &str = "default";
const MANAGER: &str = "e2e-kube";
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// One API server for all tests of this file.
async fn server() -> &'static BareApiServer {
    static SERVER: OnceCell<BareApiServer> = OnceCell::const_new();
    SERVER
        .get_or_init(async || BareApiServer::start().await.unwrap())
        .await
}

/// A client of our own kind and the number of requests that it has sent.
async fn counted() -> Result<(Client, Arc<AtomicUsize>)> {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let counter = Arc::new(move |_: &str, _: &str| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    Ok((tenant_client(&endpoint(server().await)?, counter)?, sent))
}

/// Objects of four kinds with and without a generation, named `name`.
fn objects(name: &str) -> Vec<Desired> {
    let meta =
        json!({"name": name, "namespace": NAMESPACE, "labels": {"e2e": "kube", "test": name}});
    let config: ConfigMap =
        serde_json::from_value(json!({"metadata": meta, "data": {"a": "b"}})).unwrap();
    let secret: Secret =
        serde_json::from_value(json!({"metadata": meta, "stringData": {"key": "x"}})).unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": meta,
        "spec": {"selector": {"a": "b"}, "ports": [{"name": "https", "port": 443}]},
    }))
    .unwrap();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "a:1"}]},
            },
        },
    }))
    .unwrap();
    vec![
        Desired::of(&config).unwrap().answered_whole(),
        Desired::of(&secret).unwrap().answered_whole(),
        Desired::of(&service).unwrap().answered_whole(),
        Desired::of(&deployment).unwrap().answered_whole(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pass_sends_nothing_and_a_fresh_ledger_stores_nothing() -> Result<()> {
    let (client, sent) = counted().await?;
    let writer = Writer::new(client, MANAGER);
    let ledger = Ledger::new();
    let first = writer.apply_all(objects("noop"), &ledger, 4).await?;
    assert!(first.iter().all(|outcome| outcome.changed));
    let versions = |outcomes: &[stoker_kube::Outcome]| -> Vec<_> {
        let object = |outcome: &stoker_kube::Outcome| outcome.object.clone().unwrap();
        outcomes
            .iter()
            .map(|o| object(o).resource_version().unwrap())
            .collect()
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
    let client = tenant_client(&stranger, Arc::new(|_, _| {}))?;
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
    let client = tenant_client(&mistaken, Arc::new(|_, _| {}))?;
    assert_eq!(ready(&client).await.unwrap_err().category(), "TlsFailed");

    let mut nobody = endpoint(server().await)?;
    nobody.address = "127.0.0.1:1".parse()?;
    let client = tenant_client(&nobody, Arc::new(|_, _| {}))?;
    let error = ready(&client).await.unwrap_err();
    assert_eq!(error.category(), "ConnectionRefused");
    assert!(error.is_transient());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_shares_one_http2_connection() -> Result<()> {
    // A server of its own: other tests' connections are not counted.
    let server = BareApiServer::start().await?;
    let endpoint = endpoint(&server)?;
    let client = tenant_client(&endpoint, Arc::new(|_, _| {}))?;
    assert!(ready(&client).await?);
    let mut watching = Box::pin(watch_owned(client.clone(), watch_ours(eleven_kinds())));
    let writer = Writer::new(client.clone(), MANAGER);
    writer
        .apply_all(objects("shared"), &Ledger::new(), 4)
        .await?;
    let mut seen = 0;
    while seen < 3 {
        // Secrets are not among the eleven kinds.
        timeout(PATIENCE, watching.next()).await?.unwrap()?;
        seen += 1;
    }
    let lists = (0..50).map(|_| async {
        let configs: Api<ConfigMap> = Api::all(client.clone());
        configs.list(&ListParams::default()).await
    });
    futures::future::try_join_all(lists).await?;
    assert_eq!(connections_to(endpoint.address)?, 1);
    drop((watching, writer, client));
    let begun = Instant::now();
    while connections_to(endpoint.address)? > 0 {
        assert!(
            begun.elapsed() < PATIENCE,
            "the connection outlives its client"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_once_and_never_on_a_namesake() -> Result<()> {
    let admin = server().await.client().await?;
    let crds: Api<CustomResourceDefinition> = Api::all(admin.clone());
    let crd = <DataStore as kube::CustomResourceExt>::crd();
    let params = PatchParams::apply(MANAGER).force();
    crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
        .await?;
    let stores: Api<DynamicObject> =
        Api::all_with(admin.clone(), &ApiResource::erase::<DataStore>(&()));
    let manifest = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "DataStore", "metadata": {"name": "status"},
        "spec": {"driver": "etcd", "endpoints": ["127.0.0.1:2379"], "tlsConfig": {
            "certificateAuthority": {
                "certificate": {"content": "YQ=="}, "privateKey": {"content": "YQ=="},
            },
            "clientCertificate": {
                "certificate": {"content": "YQ=="}, "privateKey": {"content": "YQ=="},
            },
        }},
    });
    let begun = Instant::now();
    let made: DynamicObject = loop {
        match stores
            .patch("status", &params, &Patch::Apply(&manifest))
            .await
        {
            Ok(made) => break made,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let made: DataStore = made.try_parse()?;

    let mut status = made.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    conditions::set(
        &mut status.conditions,
        "Ready",
        true,
        "Reachable",
        "",
        1,
        now,
    );
    assert!(write_status(&admin, &made, made.status.as_ref(), &status).await?);
    let current: DataStore = stores.get("status").await?.try_parse()?;
    let stored_status = current.status.clone().unwrap();
    assert_eq!(stored_status.conditions.len(), 1);
    let mut later = stored_status.clone();
    later.conditions[0].last_transition_time.0 = Timestamp::from_second(1)?;
    assert!(!write_status(&admin, &current, Some(&stored_status), &later).await?);
    let again: DataStore = stores.get("status").await?.try_parse()?;
    assert_eq!(again.resource_version(), current.resource_version());
    // What a status no longer says goes.
    assert!(
        write_status(
            &admin,
            &current,
            Some(&stored_status),
            &DataStoreStatus::default()
        )
        .await?
    );
    let emptied: DataStore = stores.get("status").await?.try_parse()?;
    assert!(
        emptied
            .status
            .is_none_or(|status| status.conditions.is_empty())
    );

    stores.delete("status", &DeleteParams::default()).await?;
    let error = write_status(&admin, &current, None, &status)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    stores
        .patch("status", &params, &Patch::Apply(&manifest))
        .await?;
    let error = write_status(&admin, &current, None, &status)
        .await
        .unwrap_err();
    assert_eq!(error.category(), "Conflict", "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_recorded_once_with_its_note() -> Result<()> {
    let (client, _) = counted().await?;
    let writer = Writer::new(client.clone(), MANAGER);
    let object = writer.apply(&objects("eventful")[0]).await?;
    let reference = object.object_ref(&ApiResource::erase::<ConfigMap>(&()));
    let events = Events::new(client.clone(), "stoker", "e2e");
    let long = "ü".repeat(5000);
    for note in ["first", "first", "second", &long] {
        events
            .publish(&reference, true, "Tested", "Test", note)
            .await;
    }
    let api: Api<Event> = Api::namespaced(client, NAMESPACE);
    let found = api.list(&ListParams::default()).await?;
    let notes: Vec<_> = found
        .iter()
        .filter(|event| event.reason.as_deref() == Some("Tested"))
        .map(|event| event.note.clone().unwrap_or_default())
        .collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes.contains(&"first".to_owned()) && notes.contains(&"second".to_owned()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_goes_to_a_standby_at_once_when_released_and_in_time_when_not() -> Result<()> {
    let (client, sent) = counted().await?;
    let election = |name: &str| Election::new(client.clone(), NAMESPACE, "e2e-lease", name);
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let holder = async || -> Result<String> {
        let spec = leases.get("e2e-lease").await?.spec.unwrap();
        Ok(spec.holder_identity.unwrap_or_default())
    };
    let first = election("one").acquire().await?;
    assert_eq!(holder().await?, "one");
    let standby = tokio::spawn(election("two").acquire());
    let before = sent.load(Ordering::Relaxed);
    let kept = timeout(Duration::from_secs(16), first.hold()).await;
    assert!(kept.is_err(), "lost although renewed: {kept:?}");
    assert!(!standby.is_finished());
    // 3 renewals of the holder, 8 looks of the standby.
    let requests = sent.load(Ordering::Relaxed) - before;
    assert!(requests <= 14, "{requests} requests in 16 s");

    let released = Instant::now();
    first.release().await;
    let second = timeout(PATIENCE, standby).await???;
    println!("a released lease was taken after {:?}", released.elapsed());
    assert!(released.elapsed() < Duration::from_secs(4));
    assert_eq!(holder().await?, "two");

    // The holder is gone without a word.
    let gone = Instant::now();
    drop(second);
    let _third = timeout(PATIENCE * 2, election("three").acquire()).await??;
    println!("an abandoned lease was taken after {:?}", gone.elapsed());
    assert!(
        gone.elapsed() > Duration::from_secs(10),
        "taken before it ended"
    );
    assert_eq!(holder().await?, "three");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_candidates_at_once_never_both_win() -> Result<()> {
    let (client, _) = counted().await?;
    let candidates = (0..5).map(|number| {
        let election = Election::new(client.clone(), NAMESPACE, "e2e-race", &number.to_string());
        timeout(Duration::from_secs(5), election.acquire())
    });
    let winners = futures::future::join_all(candidates).await;
    let won: Vec<Result<_, Error>> = winners.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_network_is_noticed_and_nothing_is_missed() -> Result<()> {
    let mut endpoint = endpoint(server().await)?;
    let proxy = StallingProxy::before(endpoint.address).await?;
    endpoint.address = proxy.address;
    let client = tenant_client(&endpoint, Arc::new(|_, _| {}))?;
    let (admin, _) = counted().await?;
    let writer = Writer::new(admin, MANAGER);
    let ledger = Ledger::new();
    writer.apply_all(objects("network"), &ledger, 4).await?;
    let mut watch = watch_ours(vec![ApiResource::erase::<ConfigMap>(&())]);
    watch.selector = "test=network".to_owned();
    let mut changes = Box::pin(watch_owned(client.clone(), watch));
    let first = timeout(PATIENCE, changes.next()).await?.unwrap()?;
    assert_eq!(ledger.observe(&first), Observation::Echo);

    // Connections are closed while the object is deleted.
    proxy.become_(Network::Down);
    let broken = timeout(PATIENCE, changes.next())
        .await?
        .unwrap()
        .unwrap_err();
    assert!(broken.is_transient(), "{broken:?}");
    let key = objects("network")[0].key().clone();
    assert!(writer.delete(&key, None).await?);
    proxy.become_(Network::Up);
    let change = loop {
        // Attempts that fail meanwhile are reported too.
        if let Ok(change) = timeout(PATIENCE, changes.next()).await?.unwrap() {
            break change;
        }
    };
    assert!(change.deleted);
    assert_eq!(ledger.observe(&change), Observation::Changed);

    // Nothing arrives any more and nobody says so.
    proxy.become_(Network::Silent);
    let begun = Instant::now();
    let error = ready(&client).await.unwrap_err();
    assert_eq!(error.category(), "Timeout");
    assert!(
        begun.elapsed() < Duration::from_secs(11),
        "{:?}",
        begun.elapsed()
    );
    let broken = timeout(PATIENCE * 2, changes.next()).await?.unwrap();
    println!(
        "a silent peer was noticed after {:?}: {}",
        begun.elapsed(),
        broken.is_err()
    );
    assert!(broken.is_err() && begun.elapsed() < Duration::from_secs(32));
    // A new connection gets no answer to its handshake.
    let begun = Instant::now();
    let error = ready(&client).await.unwrap_err();
    assert_eq!(error.category(), "Timeout");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );

    proxy.become_(Network::Up);
    writer.apply_all(objects("network"), &ledger, 4).await?;
    loop {
        if let Ok(change) = timeout(PATIENCE * 2, changes.next()).await?.unwrap() {
            assert!(!change.deleted);
            assert_eq!(ledger.observe(&change), Observation::Echo);
            break;
        }
    }
    Ok(())
}
