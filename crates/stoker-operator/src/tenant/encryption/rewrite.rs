//! Has an API server write every object of some resources anew, without reading what is in them: a change that changes
//! nothing is written if the value was encrypted otherwise than it would be now, and only then
//! (`k8s.io/apiserver`, `pkg/storage/etcd3/store.go`, `GuaranteedUpdate`, `stale`).

use std::time::Instant;

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, ObjectMeta};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::json;
use stoker_control_plane::Stored;

use crate::FIELD_MANAGER;

/// Objects' metadata in one answer.
const PAGE: u32 = 64;
/// Objects at the same time.
const CONCURRENCY: usize = 8;

/// How far it is.
#[derive(Default)]
pub(super) struct Rewrite {
    /// Resources that are done.
    resources: usize,
    /// Where the next page begins.
    token: Option<String>,
    done: u64,
}

/// Why a page is not written.
enum Halt {
    Listing(kube::Error),
    /// An object, and why it cannot be written.
    Refused(String),
}

/// What came of some work.
pub(super) enum Progress {
    /// All of it is done, and this is found.
    Found(Stored),
    /// So many objects are.
    Further(u64),
    /// Why it does not go on.
    Stuck(String),
}

impl Rewrite {
    /// Goes on until it is done, or late.
    pub(super) async fn go_on(
        &mut self,
        client: &Client,
        resources: &[String],
        until: Instant,
    ) -> Progress {
        while let Some(resource) = resources.get(self.resources) {
            match self.page(client, resource).await {
                Ok(true) => (self.resources, self.token) = (self.resources + 1, None),
                Ok(false) => {}
                // The list is too old to go on with.
                Err(Halt::Listing(kube::Error::Api(status))) if status.code == 410 => {
                    self.token = None;
                }
                Err(Halt::Listing(error)) => {
                    return Progress::Stuck(format!("{resource} cannot be listed: {error}"));
                }
                // What refuses one, or never answers, mostly does so to all.
                Err(Halt::Refused(refused)) => {
                    *self = Self::default();
                    return Progress::Stuck(refused);
                }
            }
            if Instant::now() > until {
                return Progress::Further(self.done);
            }
        }
        Progress::Found(Stored::Unknown)
    }

    /// Writes one page anew; whether it was the last.
    async fn page(&mut self, client: &Client, resource: &str) -> Result<bool, Halt> {
        let mut params = ListParams::default().limit(PAGE);
        params.continue_token.clone_from(&self.token);
        for kind in kinds(client, resource).await.map_err(Halt::Listing)? {
            let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            let page = match all.list_metadata(&params).await {
                Ok(page) => page,
                // Of another version of the group.
                Err(kube::Error::Api(status)) if status.is_not_found() => continue,
                Err(error) => return Err(Halt::Listing(error)),
            };
            let objects = page.items.into_iter();
            let written: Vec<_> = objects
                .map(|object| write(client.clone(), kind.clone(), object.metadata).boxed())
                .collect();
            let mut written = futures::stream::iter(written).buffer_unordered(CONCURRENCY);
            while let Some(written) = written.next().await {
                written.map_err(Halt::Refused)?;
                self.done += 1;
            }
            self.token = page.metadata.continue_.filter(|token| !token.is_empty());
            return Ok(self.token.is_none());
        }
        // The tenant does not serve it: there is nothing.
        Ok(true)
    }
}

/// The resource in every version of its group, the preferred one first.
async fn kinds(client: &Client, resource: &str) -> Result<Vec<ApiResource>, kube::Error> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let of = |version: &str| {
        // Its kind is of no use in paths.
        let kind = GroupVersionKind::gvk(group, version, "");
        ApiResource::from_gvk_with_plural(&kind, plural)
    };
    if group.is_empty() {
        return Ok(vec![of("v1")]);
    }
    let request = http::Request::get(format!("/apis/{group}")).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    let found: APIGroup = match client.request(request).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let preferred = found.preferred_version.into_iter();
    let versions = preferred.chain(found.versions);
    Ok(versions.map(|version| of(&version.version)).collect())
}

/// Writes one object anew as it is. Who writes or deletes it meanwhile has done the work.
async fn write(client: Client, kind: ApiResource, metadata: ObjectMeta) -> Result<(), String> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let objects: Api<DynamicObject> = match &metadata.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &kind),
        None => Api::all_with(client, &kind),
    };
    let same = json!({ "metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version,
    }});
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match objects
        .patch_metadata(name, &params, &Patch::Merge(same))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => {
            let place = metadata.namespace.as_deref().unwrap_or_default();
            Err(format!(
                "{} {place}/{name} cannot be written: {error}",
                kind.plural
            ))
        }
    }
}
