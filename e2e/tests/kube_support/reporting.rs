//! Status and events.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use serde_json::json;
use stoker_api::v1alpha1::{DataStore, DataStoreStatus};
use stoker_kube::{Events, Writer, conditions, write_status};

use crate::{MANAGER, NAMESPACE, PATIENCE, counted, objects, server};
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
