//! What must hold of tenants that are being deleted, whatever failed.

use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::Value;
use stoker_api::StorageId;
use stoker_api::labels::FINALIZER;
use stoker_pki::EscrowKey;

use super::faults::{Call, Failure, Sent};
use super::witness::KEYS;
use super::world::{QUIET, Snapshot, Trial, World};

/// What the garbage collector of a real cluster removes after the tenant, for it owns it.
const COLLECTED: [&str; 3] = [
    "NetworkPolicy one",
    "PodDisruptionBudget one",
    "Service one",
];

/// One tenant to be deleted, born and with data in the pool; its namespace, and how long its data is kept.
fn trial(namespace: String, call: &Call, failure: Failure, retention: i64) -> Trial {
    Trial {
        namespace,
        call: call.clone(),
        failure,
        retention,
    }
}

/// Every call with every failure, each in a namespace of its own.
pub(crate) fn trials(
    (kind, retention): (&str, i64),
    calls: &[Call],
    failures: &[(&str, Failure)],
) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, failure) in failures {
        for (index, call) in calls.iter().enumerate() {
            let namespace = format!("{kind}-{name}-{index:02}");
            trials.push(trial(namespace, call, *failure, retention));
        }
    }
    trials
}

impl World {
    /// Bears the tenants, gives them data, and forgets what was sent and said so far.
    pub(crate) async fn bear(&self, trials: &[Trial]) {
        self.create_all(trials).await;
        self.all("births", trials, |trial| self.applied(&trial.namespace))
            .await;
        self.faults.quiet(QUIET).await;
        for trial in trials {
            self.put_data(&trial.namespace).await;
            let ids = self.witness.ids(&trial.namespace);
            self.faults.alias(ids.first().unwrap(), &trial.namespace);
            self.faults.forget(&trial.namespace);
            self.witness.forget(&trial.namespace);
        }
    }

    /// Asks for all of them to be deleted.
    pub(crate) async fn delete_all(&self, trials: &[Trial]) {
        stream::iter(trials)
            .for_each_concurrent(8, async |trial| {
                let tenants = self.bare.tenants(&trial.namespace);
                tenants
                    .delete("one", &DeleteParams::default())
                    .await
                    .unwrap();
            })
            .await;
    }

    /// The requests of an undisturbed deletion, up to that which lets the object go; a pass over what the cache still held
    /// may follow.
    pub(crate) async fn undisturbed_deletion(&self, namespace: &str, retention: i64) -> Vec<Sent> {
        let trial = trial(
            namespace.to_owned(),
            &Call::default(),
            Failure::Refused,
            retention,
        );
        let trials = [trial];
        self.bear(&trials).await;
        self.delete_all(&trials).await;
        self.all("a deletion", &trials, |trial| {
            self.witness.gone(&trial.namespace)
        })
        .await;
        self.faults.quiet(QUIET).await;
        let mut sent = self.faults.sent(namespace);
        let last = |sent: &Sent| sent.call.is("apply", "tenantcontrolplanes", "");
        let last = sent.iter().position(last).unwrap();
        sent.truncate(last + 1);
        sent
    }

    /// What is wrong with what is left at the end.
    pub(crate) async fn left_wrong(&self, trials: &[Trial]) -> Vec<String> {
        let snapshot = self.snapshot().await;
        let mut wrong = self.witness.violations();
        for trial in trials {
            let namespace = &trial.namespace;
            let left: Vec<String> = snapshot.of(namespace).into_keys().collect();
            if left != COLLECTED {
                wrong.push(format!("{trial}: not collected: {left:?}"));
            }
            for (name, shape) in snapshot.of(namespace) {
                if shape["owners"] != serde_json::json!(["TenantControlPlane"]) {
                    wrong.push(format!("{trial}: {name} has no owner"));
                }
            }
            let ids = self.witness.ids(namespace);
            let id = ids.first().unwrap();
            if snapshot.users.contains(id) || snapshot.roles.contains(id) {
                wrong.push(format!("{trial}: a user or role is left"));
            }
            let kept = trial.retention > 0;
            let record = snapshot.owners.get(id);
            let retained =
                record.is_some_and(|record| record.retained_until.is_some() && !record.purging);
            if snapshot.data_of(id) != usize::from(kept)
                || retained != kept
                || record.is_some() != kept
            {
                wrong.push(format!(
                    "{trial}: {} keys and {record:?}",
                    snapshot.data_of(id)
                ));
            }
            match (self.keys_of(id).await, kept) {
                (None, false) => {}
                (Some(keys), true) => wrong.extend(self.keys_wrong(trial, &keys)),
                (keys, _) => wrong.push(format!("{trial}: retained keys: {}", keys.is_some())),
            }
        }
        wrong
    }

    /// The keys of retained data: their copy in the pool, opened with the operator's key.
    async fn keys_of(&self, id: &str) -> Option<Value> {
        let secrets = self.bare.secrets("stoker-system");
        let secret = secrets.get("stoker-escrow-key").await.unwrap();
        let text = String::from_utf8(secret.data.unwrap()["key"].0.clone()).unwrap();
        let key = EscrowKey::from_text(&text).unwrap();
        let found = self
            .pool
            .escrow(&StorageId::try_from(id).unwrap())
            .await
            .unwrap()?;
        let opened = key
            .open(&format!("keys of storage id {id}"), &found.sealed)
            .unwrap();
        Some(serde_json::from_slice(&opened).unwrap())
    }

    /// Every byte of every key must be in the copy.
    fn keys_wrong(&self, trial: &Trial, copy: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        for name in KEYS {
            let first = self.witness.first_content(&trial.namespace, name).unwrap();
            let suffix = name.trim_start_matches("one-");
            for (entry, value) in first.as_object().unwrap() {
                if copy[suffix][entry] != *value {
                    wrong.push(format!("{trial}: {entry} of {name} is not retained"));
                }
            }
        }
        wrong
    }

    /// What is wrong in the middle of deletions, at whatever moment the operator died: nothing is gone before what must
    /// outlive it.
    pub(crate) async fn gone_too_soon(&self, snapshot: &Snapshot, trials: &[Trial]) -> Vec<String> {
        let mut wrong = Vec::new();
        for trial in trials {
            let namespace = &trial.namespace;
            let ids = self.witness.ids(namespace);
            let id = ids.first().unwrap();
            let objects = snapshot.of(namespace);
            let settled = match snapshot.owners.get(id) {
                Some(record) => record.retained_until.is_some() && trial.retention > 0,
                None => trial.retention == 0,
            };
            let settled = settled && !snapshot.users.contains(id) && !snapshot.roles.contains(id);
            let mut gone = KEYS
                .iter()
                .filter(|name| !objects.contains_key(&format!("Secret {name}")));
            if let Some(gone) = gone.next()
                && !settled
            {
                wrong.push(format!(
                    "{trial}: {gone} is gone before the data is settled"
                ));
            }
            if settled && objects.contains_key("Deployment one") {
                wrong.push(format!("{trial}: the data is settled while pods may run"));
            }
            if trial.retention > 0 {
                match self.keys_of(id).await {
                    Some(keys) => wrong.extend(self.keys_wrong(trial, &keys)),
                    None if settled => wrong.push(format!("{trial}: data without its keys")),
                    None => {}
                }
            }
            let tenant = snapshot.tenants.get(namespace);
            let guarded = tenant
                .is_some_and(|tenant| tenant.finalizers().iter().any(|name| name == FINALIZER));
            let left: Vec<&String> = objects
                .keys()
                .filter(|name| !COLLECTED.contains(&name.as_str()))
                .collect();
            if !guarded && (!settled || !left.is_empty()) {
                wrong.push(format!(
                    "{trial}: the tenant is gone before {left:?}, settled: {settled}"
                ));
            }
        }
        wrong
    }
}
