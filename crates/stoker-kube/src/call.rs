//! What calls for objects of any kind share.

use http::HeaderValue;
use http::header::ACCEPT;
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// An object whole.
pub(crate) const JSON: &str = "application/json";
/// The metadata of an object without the rest.
pub(crate) const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Makes a request whose answer comes as `accept` says.
pub(crate) async fn request<T>(
    client: &Client,
    mut request: http::Request<Vec<u8>>,
    accept: &'static str,
) -> Result<T, kube::Error>
where
    T: DeserializeOwned,
{
    let accept = HeaderValue::from_static(accept);
    request.headers_mut().insert(ACCEPT, accept);
    client.request(request).await
}

/// The objects of a kind in a namespace, or of the whole cluster.
pub(crate) fn objects<K>(client: &Client, kind: &ApiResource, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}
