//! Server-side apply of what we want, and removal of what we no longer want.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch,
    PatchParams, Preconditions,
};
use kube::core::Request;
use kube::{Client, Resource as _, ResourceExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::call::{JSON, METADATA, objects, request};
use crate::desired::{Desired, ObjectKey};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::ledger::Ledger;

mod yielding;

/// How often an object is applied again within one pass because somebody else wrote it while our
/// write was on its way. A further attempt belongs to the next pass, with its backoff.
const OVERTAKEN_ATTEMPTS: usize = 3;

/// Objects per page when looking for leftovers: metadata alone, at most 256 KiB of annotations each.
const PAGE: u32 = 25;
/// Pages of one kind looked through at a time. Whoever owns a cluster can make objects that look like ours without
/// end; one page is held at a time, and what is beyond the last is left for another time.
const PAGES: u32 = 40;

/// An answer of which the fingerprint is read and the rest, mostly managed fields, passed over.
#[derive(Deserialize)]
pub(crate) struct Brief {
    pub(crate) metadata: Fingerprint,
}

/// Writes objects to one API server under one field manager.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    field_manager: &'static str,
}

/// What became of one object in [`Writer::apply_all`].
#[derive(Debug)]
pub struct Outcome {
    /// Which object.
    pub key: ObjectKey,
    /// Whether the API server stored something new. Also `true` for the first apply of an object
    /// that the ledger has never seen.
    pub changed: bool,
    /// The object as stored, when [`Desired::answered_whole`] asked for it, as the API server wrote it: whoever needs
    /// it reads the part that he needs. `None` when nothing had to be sent.
    pub object: Option<Box<RawValue>>,
}

impl Writer {
    /// A writer whose fields belong to `field_manager`: one constant name per controller.
    #[must_use]
    pub fn new(client: Client, field_manager: &'static str) -> Self {
        Self {
            client,
            field_manager,
        }
    }

    /// The client beneath, for reads.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn field_manager(&self) -> &'static str {
        self.field_manager
    }

    /// Applies one object, taking its fields from whoever else set them. The API server stores
    /// nothing when nothing differs. The answer is the object as stored, without managed fields.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub async fn apply(&self, desired: &Desired) -> Result<DynamicObject, Error> {
        let mut object: DynamicObject = self.send(desired, JSON).await?;
        object.managed_fields_mut().clear();
        Ok(object)
    }

    async fn send<T>(&self, desired: &Desired, accept: &'static str) -> Result<T, Error>
    where
        T: DeserializeOwned,
    {
        let key = desired.key();
        let body = desired.body().to_vec();
        self.patch(key, body, accept)
            .await
            .map_err(|source| Error::Apply {
                key: key.clone(),
                source: Box::new(source),
            })
    }

    /// Server-side apply of a body that is JSON.
    pub(crate) async fn patch<T>(
        &self,
        key: &ObjectKey,
        body: Vec<u8>,
        accept: &'static str,
    ) -> Result<T, kube::Error>
    where
        T: DeserializeOwned,
    {
        self.apply_to(key, body, true, accept).await
    }

    async fn apply_to<T>(
        &self,
        key: &ObjectKey,
        body: Vec<u8>,
        force: bool,
        accept: &'static str,
    ) -> Result<T, kube::Error>
    where
        T: DeserializeOwned,
    {
        let params = PatchParams {
            force,
            ..PatchParams::apply(self.field_manager)
        };
        let url = DynamicObject::url_path(key.resource(), key.namespace());
        let patch = Request::new(&url)
            .patch(key.name(), &params, &Patch::Apply(()))
            .map_err(kube::Error::BuildRequest)?;
        request(&self.client, patch.map(|_| body), accept).await
    }

    /// Applies the objects that the ledger does not know to be current, at most `concurrency` at
    /// once, and keeps the ledger. Every object is attempted even when another fails. The outcomes
    /// have the order of `desired`.
    ///
    /// # Errors
    /// The first failure in the order of `desired`; it names its object.
    pub async fn apply_all(
        &self,
        desired: Vec<Desired>,
        ledger: &Ledger,
        concurrency: usize,
    ) -> Result<Vec<Outcome>, Error> {
        let results: Vec<Result<Outcome, Error>> = stream::iter(desired)
            .map(|desired| self.apply_noted(desired, ledger))
            .buffered(concurrency.max(1))
            .collect()
            .await;
        results.into_iter().collect()
    }

    async fn apply_noted(&self, desired: Desired, ledger: &Ledger) -> Result<Outcome, Error> {
        let key = desired.key().clone();
        let mut changed = false;
        let mut object = None;
        let mut attempts = 0;
        while !ledger.is_current(&desired) {
            if attempts == OVERTAKEN_ATTEMPTS {
                return Err(Error::Overtaken { key });
            }
            attempts += 1;
            ledger.begin(&key);
            let stored = match self.apply_brief(&desired).await {
                Ok((stored, whole)) => {
                    object = whole;
                    stored
                }
                Err(error) => {
                    ledger.abandon(&key);
                    return Err(error);
                }
            };
            changed |= ledger.record(&desired, &stored).changed;
        }
        Ok(Outcome {
            key,
            changed,
            object,
        })
    }

    /// What the ledger needs of the answer, and all of it if it is wanted.
    async fn apply_brief(
        &self,
        desired: &Desired,
    ) -> Result<(Fingerprint, Option<Box<RawValue>>), Error> {
        if let Some(path) = desired.yields() {
            return Ok((self.apply_yielding(desired, path).await?, None));
        }
        if desired.wants_whole() {
            let whole: Box<RawValue> = self.send(desired, JSON).await?;
            let Brief { metadata } =
                serde_json::from_str(whole.get()).map_err(|error| Error::Apply {
                    key: desired.key().clone(),
                    source: Box::new(kube::Error::SerdeError(error)),
                })?;
            return Ok((metadata, Some(whole)));
        }
        let Brief { metadata } = self.send(desired, METADATA).await?;
        Ok((metadata, None))
    }

    /// Deletes an object, its dependents in the background. `false` when it was not there, or when
    /// `uid` is given and another object has taken its name since.
    ///
    /// # Errors
    /// [`Error::Delete`].
    pub async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<bool, Error> {
        let mut params = DeleteParams::background();
        params.preconditions = uid.map(|uid| Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let objects: Api<PartialObjectMeta<DynamicObject>> =
            objects(&self.client, key.resource(), key.namespace());
        match objects.delete(key.name(), &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(kube::Error::Api(status)) if status.is_conflict() && uid.is_some() => {
                let source = Box::new(kube::Error::Api(status));
                let error = Error::Delete {
                    key: key.clone(),
                    source,
                };
                // The uid is one reason of several, and its wording differs between code paths of
                // the API server: look whether the object is still that one.
                match objects.get_metadata_opt(key.name()).await {
                    Ok(Some(found)) if found.metadata.uid.as_deref() == uid => Err(error),
                    Ok(_) => Ok(false),
                    Err(_) => Err(error),
                }
            }
            Err(source) => Err(Error::Delete {
                key: key.clone(),
                source: Box::new(source),
            }),
        }
    }

    /// Deletes what this ledger has applied and `keep` does not name, and forgets it. Returns
    /// what existed. All are attempted even when one fails.
    ///
    /// # Errors
    /// The first failure, [`Error::Delete`].
    pub async fn prune(
        &self,
        ledger: &Ledger,
        keep: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<ObjectKey>, Error> {
        let mut removed = Vec::new();
        let mut failure = None;
        for key in ledger.keys() {
            if keep.contains(&key) {
                continue;
            }
            match self.delete(&key, ledger.uid(&key).as_deref()).await {
                Ok(existed) => {
                    ledger.forget(&key);
                    if existed {
                        removed.push(key);
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(removed), Err)
    }

    /// Lists the objects of these kinds that carry the labels of `selector` and deletes those that
    /// `keep` does not name: leftovers from before this process started, the first thousand of each kind. Objects already being
    /// deleted are left alone. `namespace` limits the search and must be `None` for kinds of the
    /// whole cluster.
    ///
    /// # Errors
    /// The first [`Error::List`] or [`Error::Delete`]; what comes after it was not attempted.
    pub async fn prune_kinds(
        &self,
        kinds: &[ApiResource],
        namespace: Option<&str>,
        selector: &str,
        keep: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<ObjectKey>, Error> {
        let mut removed = Vec::new();
        for kind in kinds {
            let mut token = None;
            for _ in 0..PAGES {
                let (found, next) = self.list_keys(kind, namespace, selector, token).await?;
                for (key, uid) in found {
                    if !keep.contains(&key) && self.delete(&key, uid.as_deref()).await? {
                        removed.push(key);
                    }
                }
                token = next;
                if token.is_none() {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Deletes every object of these kinds that carries the labels of `selector`.
    ///
    /// # Errors
    /// As [`Writer::prune_kinds`].
    pub async fn delete_labelled(
        &self,
        kinds: &[ApiResource],
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<ObjectKey>, Error> {
        self.prune_kinds(kinds, namespace, selector, &BTreeSet::new())
            .await
    }

    /// One page of the objects of a kind that carry the labels, with their uids, and the token of the next;
    /// without those already being deleted.
    async fn list_keys(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        selector: &str,
        token: Option<String>,
    ) -> Result<(Vec<(ObjectKey, Option<String>)>, Option<String>), Error> {
        let objects: Api<PartialObjectMeta<DynamicObject>> = objects(&self.client, kind, namespace);
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        params.continue_token = token;
        let page = objects.list(&params).await.map_err(|source| Error::List {
            kind: kind.kind.clone(),
            source: Box::new(source),
        })?;
        let alive = page
            .items
            .into_iter()
            .map(|object| object.metadata)
            .filter(|meta| meta.deletion_timestamp.is_none());
        let key = |meta: ObjectMeta| {
            let name = meta.name.unwrap_or_default();
            (
                ObjectKey::new(kind, meta.namespace.as_deref(), &name),
                meta.uid,
            )
        };
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok((alive.map(key).collect(), next))
    }
}

#[cfg(test)]
mod tests;
