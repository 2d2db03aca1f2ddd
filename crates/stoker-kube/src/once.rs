//! Objects whose content must never be overwritten blindly: keys that exist nowhere else.
//!
//! Forced server-side apply would let a leader that has lost its lease, and does not know it yet, replace what
//! its successor has just made. Here an object is created only while there is none, and changed only in the
//! version that was read: whoever comes second is refused by the API server and reads again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::api::{DynamicObject, PostParams};
use kube::core::Request;
use serde_json::Value;

use crate::apply::{Brief, Outcome, Writer};
use crate::call::{METADATA, request};
use crate::desired::Desired;
use crate::error::Error;
use crate::fingerprint::{Fingerprint, Marks};
use crate::ledger::Ledger;

/// An object as it was just read.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Whether its content is what is wanted.
    pub same_content: bool,
}

impl Writer {
    /// Writes `desired` where `stored` was read, and keeps the ledger: creates it where there was nothing
    /// (`None`), changes it only in the version that was read, and sends nothing where it is as wanted. What others
    /// do after the read is noticed if the ledger was told to [expect](Ledger::expect) the object before.
    ///
    /// # Errors
    /// [`Error::Apply`]; its category is `AlreadyExists` or `Conflict` when somebody else was first.
    pub async fn write_once(
        &self,
        desired: &Desired,
        stored: Option<&Stored>,
        ledger: &Ledger,
    ) -> Result<Outcome, Error> {
        let key = desired.key();
        let outcome = |changed| Outcome {
            key: key.clone(),
            changed,
            object: None,
        };
        if let Some(stored) = stored
            && stored.same_content
            && Marks::of(desired.metadata()).all_in(&Marks::of(&stored.metadata))
        {
            // No write begins here: what was seen after this was read must not be forgotten.
            return if ledger
                .record(desired, &Fingerprint::of(&stored.metadata))
                .overtaken
            {
                Err(Error::Overtaken { key: key.clone() })
            } else {
                Ok(outcome(false))
            };
        }
        ledger.begin(key);
        let answer = match stored {
            None => self.create(desired).await,
            Some(stored) => self.change(desired, &stored.metadata).await,
        };
        let Brief { metadata } = answer.map_err(|source| {
            ledger.abandon(key);
            Error::Apply {
                key: key.clone(),
                source: Box::new(source),
            }
        })?;
        let recorded = ledger.record(desired, &metadata);
        if recorded.overtaken {
            return Err(Error::Overtaken { key: key.clone() });
        }
        Ok(outcome(recorded.changed))
    }

    async fn create(&self, desired: &Desired) -> Result<Brief, kube::Error> {
        let params = PostParams {
            field_manager: Some(self.field_manager().to_owned()),
            ..PostParams::default()
        };
        let key = desired.key();
        let url = DynamicObject::url_path(key.resource(), key.namespace());
        let create = Request::new(&url)
            .create(&params, desired.body().to_vec())
            .map_err(kube::Error::BuildRequest)?;
        request(self.client(), create, METADATA).await
    }

    async fn change(&self, desired: &Desired, read: &ObjectMeta) -> Result<Brief, kube::Error> {
        let mut body: Value =
            serde_json::from_slice(desired.body()).map_err(kube::Error::SerdeError)?;
        body["metadata"]["resourceVersion"] = Value::from(read.resource_version.clone());
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        self.patch(desired.key(), body, METADATA).await
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;
    use tokio::join;

    use super::*;
    use crate::scenario::Scenario;

    fn key() -> Desired {
        Desired::of(&Secret {
            metadata: ObjectMeta {
                name: Some("a".into()),
                namespace: Some("ns".into()),
                labels: Some([("ours".to_owned(), "yes".to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([("key".to_owned(), ByteString(b"1".to_vec()))].into()),
            ..Secret::default()
        })
        .unwrap()
    }

    fn stored(labelled: bool, same_content: bool) -> Stored {
        let labels = labelled.then(|| [("ours".to_owned(), "yes".to_owned())].into());
        Stored {
            metadata: ObjectMeta {
                uid: Some("u".into()),
                resource_version: Some("7".into()),
                labels,
                ..ObjectMeta::default()
            },
            same_content,
        }
    }

    fn answer() -> Value {
        json!({ "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "8" } })
    }

    #[tokio::test]
    async fn where_there_was_nothing_it_is_created_and_never_again() {
        let (client, mut server) = Scenario::new();
        let (writer, ledger) = (Writer::new(client, "tester"), Ledger::new());
        let desired = key();
        let serve = async {
            let call = server.expect("POST", "/api/v1/namespaces/ns/secrets").await;
            assert!(call.uri.contains("fieldManager=tester"), "{}", call.uri);
            assert_eq!(call.body["data"]["key"], "MQ==");
            call.answer(201, &answer());
        };
        let (outcome, ()) = join!(writer.write_once(&desired, None, &ledger), serve);
        assert!(outcome.unwrap().changed);
        assert!(ledger.is_current(&desired));
        // Nobody serves any more.
        let read = stored(true, true);
        let again = writer.write_once(&desired, Some(&read), &ledger).await;
        assert!(!again.unwrap().changed);
    }

    #[tokio::test]
    async fn whoever_comes_second_is_refused_and_may_try_again() {
        let (client, mut server) = Scenario::new();
        let (writer, ledger) = (Writer::new(client, "tester"), Ledger::new());
        let desired = key();
        let serve = async {
            let call = server.expect("POST", "/api/v1/namespaces/ns/secrets").await;
            call.refuse(409, "AlreadyExists", "secrets \"a\" already exists");
        };
        let (outcome, ()) = join!(writer.write_once(&desired, None, &ledger), serve);
        assert_eq!(outcome.unwrap_err().category(), "AlreadyExists");
        assert!(!ledger.is_current(&desired));
    }

    #[tokio::test]
    async fn what_is_as_wanted_costs_no_request() {
        let (client, _server) = Scenario::new();
        let (writer, ledger) = (Writer::new(client, "tester"), Ledger::new());
        let outcome = writer
            .write_once(&key(), Some(&stored(true, true)), &ledger)
            .await;
        assert!(!outcome.unwrap().changed);
        assert!(ledger.is_current(&key()));
    }

    #[tokio::test]
    async fn what_differs_is_changed_only_in_the_version_that_was_read() {
        for read in [stored(false, true), stored(true, false)] {
            let (client, mut server) = Scenario::new();
            let (writer, ledger) = (Writer::new(client, "tester"), Ledger::new());
            let desired = key();
            let serve = async {
                let call = server
                    .expect("PATCH", "/api/v1/namespaces/ns/secrets/a")
                    .await;
                assert_eq!(call.body["metadata"]["resourceVersion"], "7");
                call.answer(200, &answer());
            };
            let (outcome, ()) = join!(writer.write_once(&desired, Some(&read), &ledger), serve);
            assert!(outcome.unwrap().changed);
        }
    }

    #[tokio::test]
    async fn what_was_changed_after_it_was_read_is_not_taken_for_wanted() {
        let (client, _server) = Scenario::new();
        let (writer, ledger) = (Writer::new(client, "tester"), Ledger::new());
        let desired = key();
        ledger.expect(desired.key());
        let read = stored(true, true);
        let mut later = read.metadata.clone();
        later.resource_version = Some("9".into());
        let change = crate::Change {
            key: desired.key().clone(),
            metadata: later,
            deleted: false,
        };
        assert_eq!(ledger.observe(&change), crate::Observation::Changed);
        let refused = writer.write_once(&desired, Some(&read), &ledger).await;
        assert_eq!(refused.unwrap_err().category(), "Conflict");
        assert!(!ledger.is_current(&desired));
    }
}
