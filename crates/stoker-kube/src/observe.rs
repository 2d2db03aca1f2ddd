//! Watches of the objects that we own: metadata only, and no copy of them is kept.

mod follow;

use std::collections::HashMap;

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};

use crate::desired::ObjectKey;
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use follow::{Meta, follow};

/// Which objects to watch.
#[derive(Clone, Debug)]
pub struct OwnedWatch {
    /// The kinds; one watch each.
    pub resources: Vec<ApiResource>,
    /// The label selector that finds what we own, as in `a=b,c`; empty for all objects.
    pub selector: String,
    /// A field selector, as in `metadata.name=a`.
    pub fields: Option<&'static str>,
    /// The namespace, or `None` for the whole cluster.
    pub namespace: Option<String>,
    /// The label that names the owner. Its value is kept per object, so that an object that
    /// vanished while the watch was broken can still be told to its owner.
    pub owner_label: Option<&'static str>,
    /// Objects that the caller has just written, and how the API server answered: the watch of their kind begins behind
    /// the first of them, instead of with all objects that there are. What happens to them since is told, as far as they
    /// are remembered.
    pub written: Vec<(ObjectKey, Fingerprint)>,
    /// Whether API servers are to tell about once a minute how far a silent watch has come. Without, one that begins with
    /// all objects still asks for it, until it is opened again; and one that has been silent for long may begin with a
    /// list then: the better choice where there are few objects.
    pub bookmarks: bool,
    /// Objects per kind that are remembered. Beyond it an object that vanishes while the watch is
    /// broken goes unnoticed; whoever owns the cluster can create labelled objects without end.
    pub remembered: usize,
}

/// An object was created, changed or deleted, or was reported again after the watch was reopened.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which object.
    pub key: ObjectKey,
    /// Its metadata, without managed fields. Of an object that vanished while the watch was broken
    /// only uid, resource version, generation and the owner's label are known.
    pub metadata: ObjectMeta,
    /// Whether it is gone.
    pub deleted: bool,
}

impl Change {
    /// The incarnation and state that this reports.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.metadata)
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// Follows the objects until dropped. Broken watches are reported as [`Error::Watch`] and opened
/// again with backoff (0.8 s to 30 s); after one had to start over, every object is reported again
/// and those that vanished meanwhile are reported as deleted.
pub fn watch_owned(
    client: Client,
    mut watch: OwnedWatch,
) -> impl Stream<Item = Result<Change, Error>> + Send {
    let resources = std::mem::take(&mut watch.resources);
    let watches = resources
        .into_iter()
        .map(move |resource| watch_kind(client.clone(), resource, &watch).boxed());
    stream::select_all(watches)
}

fn watch_kind(
    client: Client,
    resource: ApiResource,
    watch: &OwnedWatch,
) -> impl Stream<Item = Result<Change, Error>> + Send + use<> {
    let of_kind = |(key, _): &&(ObjectKey, Fingerprint)| *key.resource() == resource;
    let written: Vec<_> = watch.written.iter().filter(of_kind).collect();
    let first = written.iter().map(|(_, state)| state).reduce(earlier);
    let since = first.map(|state| state.resource_version().to_owned());
    let since = since.filter(|version| !version.is_empty());
    let events = follow(client, &resource, since, watch);
    let mut known = Known::new(resource, watch.owner_label, watch.remembered);
    // What was written before the watch began is missed if a list does not show it.
    for (key, state) in written {
        known.remember(key, state, None);
    }
    events.flat_map(move |event| stream::iter(known.changes(event)))
}

fn earlier<'a>(one: &'a Fingerprint, other: &'a Fingerprint) -> &'a Fingerprint {
    if one.not_after(other) { one } else { other }
}

/// Namespace and name: what tells objects of one kind apart.
fn name_of(key: &ObjectKey) -> (Option<String>, String) {
    (key.namespace().map(str::to_owned), key.name().to_owned())
}

/// What one kind's watch remembers of each object.
struct Known {
    resource: ApiResource,
    owner_label: Option<&'static str>,
    limit: usize,
    /// Most kinds have one or two.
    objects: HashMap<(Option<String>, String), Remembered>,
    /// Counts the times that the watch started over.
    round: u32,
}

struct Remembered {
    uid: Box<str>,
    resource_version: Box<str>,
    owner: Option<Box<str>>,
    round: u32,
}

impl Known {
    fn new(resource: ApiResource, owner_label: Option<&'static str>, limit: usize) -> Self {
        Self {
            resource,
            owner_label,
            limit,
            objects: HashMap::new(),
            round: 0,
        }
    }

    /// As far as there is room.
    fn remember(&mut self, key: &ObjectKey, state: &Fingerprint, owner: Option<&str>) {
        let name = name_of(key);
        if self.objects.len() < self.limit || self.objects.contains_key(&name) {
            let remembered = Remembered {
                uid: state.uid().into(),
                resource_version: state.resource_version().into(),
                owner: owner.map(Into::into),
                round: self.round,
            };
            self.objects.insert(name, remembered);
        }
    }

    fn changes(
        &mut self,
        event: Result<watcher::Event<Meta>, watcher::Error>,
    ) -> Vec<Result<Change, Error>> {
        match event {
            Ok(watcher::Event::Init) => {
                self.round = self.round.wrapping_add(1);
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                vec![Ok(self.alive(object))]
            }
            Ok(watcher::Event::Delete(object)) => vec![Ok(self.deleted(object))],
            Ok(watcher::Event::InitDone) => self.vanished().into_iter().map(Ok).collect(),
            Err(source) => vec![Err(Error::Watch {
                kind: self.resource.kind.clone(),
                source: Box::new(source),
            })],
        }
    }

    fn alive(&mut self, object: Meta) -> Change {
        let change = self.change(object, false);
        let owner = self.owner_label.and_then(|label| change.label(label));
        self.remember(&change.key, &change.fingerprint(), owner);
        change
    }

    fn deleted(&mut self, object: Meta) -> Change {
        let change = self.change(object, true);
        self.objects.remove(&name_of(&change.key));
        change
    }

    fn change(&self, mut object: Meta, deleted: bool) -> Change {
        object.managed_fields_mut().clear();
        let meta = object.metadata;
        Change {
            key: ObjectKey::new(
                &self.resource,
                meta.namespace.as_deref(),
                meta.name.as_deref().unwrap_or_default(),
            ),
            metadata: meta,
            deleted,
        }
    }

    /// The list is complete: what it did not name is gone.
    fn vanished(&mut self) -> Vec<Change> {
        let round = self.round;
        self.objects
            .extract_if(|_, remembered| remembered.round != round)
            .map(|((namespace, name), remembered)| Change {
                key: ObjectKey::new(&self.resource, namespace.as_deref(), &name),
                metadata: ObjectMeta {
                    uid: Some(remembered.uid.into()),
                    resource_version: Some(remembered.resource_version.into()),
                    labels: self
                        .owner_label
                        .zip(remembered.owner)
                        .map(|(label, owner)| [(label.to_owned(), owner.into())].into()),
                    name: Some(name),
                    namespace,
                    ..ObjectMeta::default()
                },
                deleted: true,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
