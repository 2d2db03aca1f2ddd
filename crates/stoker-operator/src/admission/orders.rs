//! What a spec refers to and may come later: told as a warning, never a reason to refuse, because whoever writes several
//! objects at once cannot say which is stored first, and the tenant waits for it.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::DataStore;
use stoker_control_plane::TLS_ROUTE_GROUP;

/// Every warning of what is not there yet. What cannot be asked for is not warned of.
pub(super) async fn missing(
    client: &Client,
    tenant: &Tenant,
    default_store: Option<&str>,
) -> Vec<String> {
    let (store, class, account, gateway) = tokio::join!(
        data_store(client, tenant, default_store),
        runtime_class(client, tenant),
        service_account(client, tenant),
        gateway_api(client, tenant)
    );
    let all = [store, class, account, gateway];
    all.into_iter().flatten().collect()
}

async fn data_store(
    client: &Client,
    tenant: &Tenant,
    default_store: Option<&str>,
) -> Option<String> {
    let stores: Api<DataStore> = Api::all(client.clone());
    if let Some(name) = tenant.data_store.as_deref().or(default_store) {
        return is_missing(&stores, name)
            .await
            .then(|| format!("DataStore {name} does not exist: the tenant waits for it"));
    }
    let two = stores.list_metadata(&ListParams::default().limit(2)).await;
    match two.ok()?.items.len() {
        0 => Some("there is no DataStore: the tenant waits for one".to_owned()),
        1 => None,
        _ => Some(
            "spec.dataStore names none of several DataStores, and the operator has no --datastore: the tenant waits"
                .to_owned(),
        ),
    }
}

async fn runtime_class(client: &Client, tenant: &Tenant) -> Option<String> {
    let name = tenant.deployment.runtime_class_name.as_deref()?;
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    is_missing(&classes, name).await.then(|| {
        format!(
            "spec.controlPlane.deployment.runtimeClassName: RuntimeClass {name} does not exist, and pods cannot be made until it does"
        )
    })
}

async fn service_account(client: &Client, tenant: &Tenant) -> Option<String> {
    let name = tenant.deployment.service_account_name.as_deref()?;
    let accounts: Api<ServiceAccount> = namespaced(client, &tenant.namespace);
    is_missing(&accounts, name).await.then(|| {
        format!(
            "spec.controlPlane.deployment.serviceAccountName: ServiceAccount {}/{name} does not exist, and pods cannot be made until it does",
            tenant.namespace
        )
    })
}

async fn gateway_api(client: &Client, tenant: &Tenant) -> Option<String> {
    tenant.gateway.as_ref()?;
    let groups = client.list_api_groups().await.ok()?.groups;
    let is_served = groups.iter().any(|group| group.name == TLS_ROUTE_GROUP);
    (!is_served).then(|| {
        "spec.controlPlane.gateway: this cluster serves no Gateway API, and there is no TLSRoute until it does".to_owned()
    })
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn is_missing<K>(objects: &Api<K>, name: &str) -> bool
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    matches!(objects.get_metadata_opt(name).await, Ok(None))
}
