//! `stoker-operator recover`: what to apply on a new management cluster to have the tenants of a pool again.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use stoker_api::StorageId;
use stoker_api::v1alpha1::DataStore;
use stoker_etcd::{OwnerRecord, Pool};
use stoker_pki::EscrowKey;

use crate::args::Args;
use crate::data_store::credentials::Credentials;
use crate::data_store::look;
use crate::escrow_key;
use crate::tenant::manifest;

/// Prints one `List` of namespaces and `TenantControlPlane`s to standard output, and on standard error whatever is left
/// to a person. Changes nothing.
///
/// # Errors
/// The `DataStore`, its pool or the escrow key cannot be read, or the manifest of a living tenant is not there or cannot
/// be opened; the others are printed all the same.
pub async fn recover(args: &Args, data_store: &str) -> anyhow::Result<()> {
    let client = Client::try_default().await?;
    let stores: Api<DataStore> = Api::all(client.clone());
    let store = stores
        .get_opt(data_store)
        .await?
        .with_context(|| format!("there is no DataStore {data_store}: apply it first"))?;
    let key = escrow_key::read(&client, &args.pod_namespace).await?;
    let credentials = Credentials::read(&client, &store.spec).await?;
    let (pool, _) = match look::open(&credentials).await {
        Ok(opened) => opened,
        Err((reason, message)) => bail!("{reason}: {message}"),
    };
    let mut manifests = Vec::new();
    let mut missing = 0;
    for (id, record) in pool.owners().await? {
        match read(&id, &record, &pool, &key).await {
            Ok(Some(manifest)) => manifests.push(manifest),
            Ok(None) => {}
            Err(error) => {
                missing += 1;
                note(&format!("{} (storage id {id}): {error:#}", record.owner))?;
            }
        }
    }
    for manifest in &manifests {
        if let Some(patch) = status_patch(manifest) {
            note(&patch)?;
        }
    }
    let namespaces: Api<Namespace> = Api::all(client);
    let there = namespaces.list_metadata(&ListParams::default()).await?;
    let there = there.items.iter().map(ResourceExt::name_any).collect();
    let mut text = serde_json::to_vec_pretty(&list(manifests, data_store, &there))?;
    text.push(b'\n');
    std::io::stdout().lock().write_all(&text)?;
    ensure!(missing == 0, "{missing} tenants are not among them");
    Ok(())
}

/// `None` of a tenant that was deleted.
async fn read(
    id: &StorageId,
    record: &OwnerRecord,
    pool: &Pool,
    key: &EscrowKey,
) -> anyhow::Result<Option<Value>> {
    if record.purging || record.retained_until.is_some() {
        return Ok(None);
    }
    let sealed = pool.manifest(id).await?;
    let sealed = sealed.context(
        "the pool has no copy of its manifest: apply the one you keep, with the storage id in spec.dataStoreSchema",
    )?;
    let manifest = manifest::open(id, &sealed, key).context("the copy of its manifest")?;
    Ok(Some(manifest))
}

/// Namespaces that are not there first, each once. The status is left to a person: `kubectl apply` cannot write it.
fn list(manifests: Vec<Value>, data_store: &str, there: &BTreeSet<String>) -> Value {
    let name = |manifest: &Value| {
        manifest["metadata"]["namespace"]
            .as_str()
            .map(str::to_owned)
    };
    let namespaces: BTreeSet<String> = manifests.iter().filter_map(name).collect();
    let namespaces = namespaces.difference(there).map(
        |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
    );
    let tenants = manifests.into_iter().map(|mut manifest| {
        if let Some(fields) = manifest.as_object_mut() {
            fields.remove("status");
        }
        // Its name may be another one here.
        manifest["spec"]["dataStore"] = json!(data_store);
        manifest
    });
    let items: Vec<Value> = namespaces.chain(tenants).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// How to say of an older tenant that its nodes' kubelets are not verified (decision 14).
fn status_patch(manifest: &Value) -> Option<String> {
    let status = manifest.get("status")?;
    let metadata = &manifest["metadata"];
    let (namespace, name) = (metadata["namespace"].as_str()?, metadata["name"].as_str()?);
    Some(format!(
        "then: kubectl -n {namespace} patch tcp {name} --subresource status --type merge -p '{{\"status\":{status}}}'"
    ))
}

fn note(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stderr().lock(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(namespace: &str, name: &str) -> Value {
        json!({ "metadata": { "namespace": namespace, "name": name }, "spec": {} })
    }

    #[test]
    fn namespaces_come_first_and_once_and_no_status_is_applied() {
        let mut old = manifest("b", "two");
        old["status"] = json!({ "kubeletsVerified": false });
        let patch = status_patch(&old).unwrap();
        assert!(patch.contains("-n b patch tcp two"), "{patch}");
        assert!(
            patch.contains(r#"{"status":{"kubeletsVerified":false}}"#),
            "{patch}"
        );
        assert_eq!(status_patch(&manifest("b", "one")), None);

        let tenants = vec![
            old,
            manifest("a", "one"),
            manifest("b", "one"),
            manifest("c", "one"),
        ];
        let list = list(tenants, "new", &["c".to_owned()].into());
        let named = |item: &Value| {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or("-").to_owned();
            (text("namespace"), text("name"))
        };
        let items: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(named)
            .collect();
        let wanted = [
            ("-", "a"),
            ("-", "b"),
            ("b", "two"),
            ("a", "one"),
            ("b", "one"),
            ("c", "one"),
        ];
        assert_eq!(list["items"][2]["spec"]["dataStore"], "new");
        assert_eq!(
            items,
            wanted.map(|(one, other)| (one.to_owned(), other.to_owned()))
        );
        assert!(!list.to_string().contains("status"));
    }
}
