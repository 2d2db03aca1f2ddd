//! An object as we want it, ready for server-side apply.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::ApiResource;
use serde::Serialize;
use serde::ser::Error as _;
use sha2::{Digest as _, Sha256};

/// The name of one object on one cluster. Two keys are the same when group, kind, namespace and
/// name are: the version of the API does not count.
#[derive(Clone, Debug)]
pub struct ObjectKey {
    resource: Arc<ApiResource>,
    namespace: Option<String>,
    name: String,
}

impl ObjectKey {
    /// The key of an object of a kind that is known only at run time.
    #[must_use]
    pub fn new(resource: &ApiResource, namespace: Option<&str>, name: &str) -> Self {
        Self {
            resource: interned(resource),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// The key of an object of a Rust type.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(namespace: Option<&str>, name: &str) -> Self {
        Self::new(&ApiResource::erase::<K>(&()), namespace, name)
    }

    /// Where the API server serves the object's kind.
    #[must_use]
    pub fn resource(&self) -> &ApiResource {
        &self.resource
    }

    /// The kind, as in `ConfigMap`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// The namespace; `None` for objects of the whole cluster.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> (&str, &str, Option<&str>, &str) {
        (
            &self.resource.kind,
            &self.resource.group,
            self.namespace.as_deref(),
            &self.name,
        )
    }
}

impl PartialEq for ObjectKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ObjectKey {}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for ObjectKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// `Secret namespace/name`, as people write it.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.resource.kind, self.name),
            None => write!(f, "{} {}", self.resource.kind, self.name),
        }
    }
}

/// One description per kind for the whole process: a ledger of a thousand tenants holds tens of
/// thousands of keys of two dozen kinds.
fn interned(resource: &ApiResource) -> Arc<ApiResource> {
    static KINDS: Mutex<Vec<Arc<ApiResource>>> = Mutex::new(Vec::new());
    let mut kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kinds.iter().find(|known| ***known == *resource) {
        return Arc::clone(known);
    }
    let new = Arc::new(resource.clone());
    kinds.push(Arc::clone(&new));
    new
}

/// How a status begins, and what else is called so.
const STATUS: &[u8] = b"\"status\":";

/// A field of an object: the keys that lead to it.
pub type FieldPath = &'static [&'static str];

/// An object as we want it: the body that server-side apply sends, and a digest of it.
///
/// The body may hold keys of a tenant, so `Debug` shows only the key.
#[derive(Clone)]
pub struct Desired {
    key: ObjectKey,
    metadata: ObjectMeta,
    body: Vec<u8>,
    digest: [u8; 32],
    answered_whole: bool,
    yields: Option<FieldPath>,
}

impl Desired {
    /// Takes an object built from nothing. Its `status` is left out: it is not ours to apply here.
    ///
    /// # Errors
    /// When the object does not turn into a JSON object or has no name.
    pub fn of<K>(object: &K) -> Result<Self, serde_json::Error>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let kind = ApiResource::erase::<K>(&());
        let body = serde_json::to_vec(object)?;
        if body.windows(STATUS.len()).any(|part| part == STATUS) {
            return Self::assemble(&kind, object.meta().clone(), serde_json::to_value(object)?);
        }
        // Most have none. A type's fields have an order, and it names its kind: equal objects serialise alike.
        Self::finished(&kind, object.meta().clone(), body)
    }

    /// The same of an object whose kind is known only at run time; it has `metadata` as every object.
    ///
    /// # Errors
    /// As [`Desired::of`].
    pub fn of_kind(kind: &ApiResource, object: &impl Serialize) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_value(object)?;
        let metadata = body.get("metadata").cloned().unwrap_or_default();
        Self::assemble(kind, serde_json::from_value(metadata)?, body)
    }

    fn assemble(
        kind: &ApiResource,
        metadata: ObjectMeta,
        mut body: serde_json::Value,
    ) -> Result<Self, serde_json::Error> {
        let fields = body
            .as_object_mut()
            .ok_or_else(|| serde_json::Error::custom("the object is not a JSON object"))?;
        fields.remove("status");
        let mut set = |field: &str, value: &str| {
            let entry = fields.entry(field);
            entry.or_insert_with(|| value.into());
        };
        set("apiVersion", &kind.api_version);
        set("kind", &kind.kind);
        // Equal objects serialise alike: all keys are sorted.
        Self::finished(kind, metadata, serde_json::to_vec(&body)?)
    }

    fn finished(
        kind: &ApiResource,
        metadata: ObjectMeta,
        body: Vec<u8>,
    ) -> Result<Self, serde_json::Error> {
        let name = metadata
            .name
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| serde_json::Error::custom("the object has no name"))?;
        Ok(Self {
            key: ObjectKey::new(kind, metadata.namespace.as_deref(), name),
            digest: Sha256::digest(&body).into(),
            metadata,
            body,
            answered_whole: false,
            yields: None,
        })
    }

    /// Asks for the whole object as stored, for [`crate::Outcome::object`]. Otherwise the API
    /// server sends its metadata alone, which is all that a ledger needs.
    #[must_use]
    pub fn answered_whole(self) -> Self {
        Self {
            answered_whole: true,
            ..self
        }
    }

    /// Leaves a field to whoever else sets it: it is ours while it is as we wrote it, and written again when it is
    /// gone. Its answer is never whole.
    #[must_use]
    pub fn yielding(self, path: FieldPath) -> Self {
        Self {
            yields: Some(path),
            ..self
        }
    }

    /// Whose body this is.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The metadata in the body.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// The body as JSON, `apiVersion` and `kind` set.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the whole object is wanted as the answer.
    pub(crate) fn wants_whole(&self) -> bool {
        self.answered_whole
    }

    /// The field that others may take.
    pub(crate) fn yields(&self) -> Option<FieldPath> {
        self.yields
    }

    /// SHA-256 of the body.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl fmt::Debug for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desired({})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_body_has_its_type_and_no_status() {
        let service = Service {
            metadata: named("a"),
            status: Some(ServiceStatus::default()),
            ..Service::default()
        };
        let desired = Desired::of(&service).unwrap();
        let body: serde_json::Value = serde_json::from_slice(desired.body()).unwrap();
        assert_eq!(body["apiVersion"], "v1");
        assert_eq!(body["kind"], "Service");
        assert!(body.get("status").is_none());
        assert_eq!(desired.key().to_string(), "Service ns/a");
    }

    #[test]
    fn equal_objects_have_equal_digests_and_others_not() {
        let of = |value: &str| {
            let data = [("k".to_owned(), value.to_owned())].into();
            Desired::of(&ConfigMap {
                metadata: named("a"),
                data: Some(data),
                ..ConfigMap::default()
            })
            .unwrap()
        };
        assert_eq!(of("x").digest(), of("x").digest());
        assert_ne!(of("x").digest(), of("y").digest());
    }

    #[test]
    fn an_object_without_a_name_is_refused() {
        assert!(Desired::of(&ConfigMap::default()).is_err());
    }

    #[test]
    fn a_key_is_group_kind_namespace_and_name_whatever_the_version() {
        let mut beta = ApiResource::erase::<Secret>(&());
        beta.version = "v2".into();
        beta.api_version = "v2".into();
        let old = ObjectKey::of::<Secret>(Some("ns"), "a");
        let new = ObjectKey::new(&beta, Some("ns"), "a");
        assert_eq!(old, new);
        assert_ne!(old, ObjectKey::of::<ConfigMap>(Some("ns"), "a"));
        assert_ne!(old, ObjectKey::of::<Secret>(None, "a"));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let secret = Secret {
            metadata: named("a"),
            string_data: Some([("key".to_owned(), "hunter2".to_owned())].into()),
            ..Secret::default()
        };
        assert!(!format!("{:?}", Desired::of(&secret).unwrap()).contains("hunter2"));
    }
}
