//! Events on objects, for people: `kubectl describe` and `kubectl events`.
//!
//! kube's own recorder is not used: within six minutes it counts up the first event of a reason
//! and drops the notes of the later ones, which are what a person needs.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::Request;
use kube::{Client, Resource as _};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::call::{METADATA, request};
use crate::conditions::cut;
use crate::error::Error;

/// Longest note that the API takes, in bytes (`events.k8s.io/v1`, `NoteLengthLimit`).
const NOTE_LIMIT: usize = 1024;
/// Longest reason, action and instance that the API takes.
const FIELD_LIMIT: usize = 128;
/// The same (object, reason, note) is said again only after this time.
const REPEAT_AFTER: Duration = Duration::from_mins(10);
/// Room for `.` and 16 hexadecimal digits in a name of 253 bytes.
const NAME_LIMIT: usize = 253 - 17;

/// Records events under the name of one controller.
pub struct Events {
    client: Client,
    controller: String,
    instance: String,
    said: Mutex<HashMap<u64, Instant>>,
}

impl Events {
    /// `controller` is the name of the program, `instance` that of this process: its pod.
    #[must_use]
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        Self {
            client,
            controller: controller.to_owned(),
            instance: cut(instance, FIELD_LIMIT),
            said: Mutex::default(),
        }
    }

    /// Records an event on `object`: a warning when it is a `problem`. A note beyond 1 kB is cut.
    /// What was said of the object in the last 10 minutes in the same words is not repeated. An
    /// event is a courtesy: that it could not be recorded is logged and nothing else.
    pub async fn publish(
        &self,
        object: &ObjectReference,
        problem: bool,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let note = cut(note, NOTE_LIMIT);
        let what = digest(object, reason, &note);
        if !self.first_time(what) {
            return;
        }
        let event = self.event(object, problem, reason, action, note);
        if let Err(error) = self.create(event, reason).await {
            self.said
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&what);
            tracing::warn!(
                reason,
                category = error.category(),
                object = object.name,
                "event not recorded"
            );
        }
    }

    fn first_time(&self, what: u64) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, when| now.duration_since(*when) < REPEAT_AFTER);
        said.insert(what, now).is_none_or(|before| {
            // Keep the time of the one that was said.
            said.insert(what, before);
            false
        })
    }

    async fn create(&self, event: Event, reason: &str) -> Result<(), Error> {
        self.send(&event)
            .await
            .map_err(|source| Error::RecordEvent {
                reason: reason.to_owned(),
                source: Box::new(source),
            })
    }

    async fn send(&self, event: &Event) -> Result<(), kube::Error> {
        let url = Event::url_path(&(), event.metadata.namespace.as_deref());
        let body = serde_json::to_vec(event).map_err(kube::Error::SerdeError)?;
        let create = Request::new(&url)
            .create(&PostParams::default(), body)
            .map_err(kube::Error::BuildRequest)?;
        let IgnoredAny = request(&self.client, create, METADATA).await?;
        Ok(())
    }

    fn event(
        &self,
        object: &ObjectReference,
        problem: bool,
        reason: &str,
        action: &str,
        note: String,
    ) -> Event {
        let now = Timestamp::now();
        let mut name = object.name.clone().unwrap_or_default();
        name.truncate(NAME_LIMIT);
        let name = format!("{name}.{:x}", now.as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                // Events on objects of the whole cluster live in `default`.
                namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".into())),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if problem { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(cut(reason, FIELD_LIMIT)),
            action: Some(cut(action, FIELD_LIMIT)),
            note: Some(note),
            regarding: Some(object.clone()),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

fn digest(object: &ObjectReference, reason: &str, note: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let name = (&object.kind, &object.namespace, &object.name, &object.uid);
    (name, reason, note).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
