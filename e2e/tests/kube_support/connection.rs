//! The connection to an API server, shared and broken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, ListParams};
use stoker_kube::{Ledger, Observation, Writer, ready, tenant_client, watch_owned};
use stoker_lab::bare::BareApiServer;
use tokio::time::timeout;

use crate::endpoint::{connections_to, eleven_kinds, endpoint, watch_ours};
use crate::stalling_proxy::{Network, StallingProxy};
use crate::{MANAGER, PATIENCE, counted, objects, server};
#[tokio::test(flavor = "multi_thread")]
async fn everything_shares_one_http2_connection() -> Result<()> {
    // A server of its own: other tests' connections are not counted.
    let server = BareApiServer::start().await?;
    let endpoint = endpoint(&server)?;
    let client = tenant_client(&endpoint, Arc::new(|_, _, _| {}))?;
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
async fn a_broken_network_is_noticed_and_nothing_is_missed() -> Result<()> {
    let mut endpoint = endpoint(server().await)?;
    let proxy = StallingProxy::before(endpoint.address).await?;
    endpoint.address = proxy.address;
    let client = tenant_client(&endpoint, Arc::new(|_, _, _| {}))?;
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
