//! What must hold of tenants that are being born, whatever failed.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use serde_json::Value;
use stoker_api::labels::FINALIZER;
use stoker_etcd::Owner;

use super::faults::{Call, Failure, Sent};
use super::world::{QUIET, Snapshot, Trial, World};

/// An undisturbed birth.
pub(crate) struct Reference {
    pub(crate) sent: Vec<Sent>,
    pub(crate) objects: BTreeMap<String, Value>,
    pub(crate) said: BTreeSet<String>,
    pub(crate) conditions: String,
}

/// Bears a tenant in the namespace `reference` and disturbs nothing.
pub(crate) async fn undisturbed(world: &World) -> Reference {
    let trial = trial("reference", Call::default(), Failure::Refused);
    world.create_all(std::slice::from_ref(&trial)).await;
    let done = |trial: &Trial| world.applied(&trial.namespace);
    world
        .all("an undisturbed birth", std::slice::from_ref(&trial), done)
        .await;
    world.faults.quiet(QUIET).await;
    let snapshot = world.snapshot().await;
    Reference {
        sent: world.faults.sent("reference"),
        objects: snapshot.of("reference"),
        said: world.witness.said("reference"),
        conditions: world.witness.conditions("reference"),
    }
}

fn trial(namespace: &str, call: Call, failure: Failure) -> Trial {
    Trial {
        namespace: namespace.to_owned(),
        call,
        failure,
        retention: 0,
    }
}

/// Every call with every failure, each in a namespace of its own.
pub(crate) fn trials(calls: &[Call], failures: &[(&str, Failure)]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, failure) in failures {
        for (index, call) in calls.iter().enumerate() {
            trials.push(trial(&format!("{name}-{index:02}"), call.clone(), *failure));
        }
    }
    trials
}

impl World {
    /// What is wrong with the tenants of `trials` at the end of their births.
    pub(crate) async fn born_wrong(&self, reference: &Reference, trials: &[Trial]) -> Vec<String> {
        let snapshot = self.snapshot().await;
        let mut wrong = self.witness.violations();
        for trial in trials {
            let namespace = &trial.namespace;
            if snapshot.of(namespace) != reference.objects {
                let differing = difference(&snapshot.of(namespace), &reference.objects);
                wrong.push(format!("{trial}: other objects: {differing:?}"));
            }
            let ids = self.witness.ids(namespace);
            if ids.len() != 1 {
                wrong.push(format!("{trial}: not one storage id but {ids:?}"));
            }
            if self.witness.conditions(namespace) != reference.conditions {
                wrong.push(format!(
                    "{trial}: ends with {}",
                    self.witness.conditions(namespace)
                ));
            }
            if let Some(wrongs) = self.claim_wrong(&snapshot, namespace).await {
                wrong.push(format!("{trial}: {wrongs}"));
            }
        }
        let tenants = snapshot.tenants.len();
        let (users, roles, owners) = (&snapshot.users, &snapshot.roles, &snapshot.owners);
        // An owner record and copies of the keys and of the manifest each.
        let counts = [
            users.len(),
            roles.len(),
            owners.len(),
            snapshot.pool_keys.len() / 3,
        ];
        if counts != [tenants; 4] {
            wrong.push(format!(
                "{tenants} tenants, but users, roles, owners, thirds of the keys: {counts:?}"
            ));
        }
        wrong
    }

    /// The claim of a tenant is complete when claiming again changes nothing.
    async fn claim_wrong(&self, snapshot: &Snapshot, namespace: &str) -> Option<String> {
        let Some(id) = snapshot.id(namespace) else {
            return Some("no storage id is recorded".to_owned());
        };
        let tenant = &snapshot.tenants[namespace];
        let owner = Owner {
            namespace: namespace.to_owned(),
            name: tenant.name_any(),
            uid: tenant.uid().unwrap_or_default(),
            management_cluster: None,
        };
        match self.pool.claim(&id, &owner).await {
            Ok(claim) if claim.is_unchanged() => None,
            other => Some(format!("the claim of {id} was not complete: {other:?}")),
        }
    }

    /// Failures that nobody was told of: neither a condition nor a warning beyond those of an undisturbed life.
    pub(crate) fn untold(
        &self,
        snapshot: &Snapshot,
        usual: &BTreeSet<String>,
        trials: &[Trial],
    ) -> Vec<String> {
        let told = |trial: &&Trial| {
            let said = self.witness.said(&trial.namespace);
            // That the status could not be written cannot be in it, nor that the object was let go.
            let unsayable = !snapshot.tenants.contains_key(&trial.namespace)
                && trial.failure == Failure::AnswerLost
                && trial.call.is("apply", "tenantcontrolplanes", "");
            // Met by another look at the object, at once: nothing has gone wrong.
            let looked_again = snapshot.tenants.contains_key(&trial.namespace)
                && trial.failure == Failure::Status(409)
                && trial.call.is("apply", "tenantcontrolplanes", "");
            unsayable
                || looked_again
                || trial.call.is_event()
                || trial.call.subresource == "status"
                || snapshot.warnings.contains_key(&trial.namespace)
                || !said.is_subset(usual)
        };
        trials
            .iter()
            .filter(|trial| !told(trial))
            .map(ToString::to_string)
            .collect()
    }
}

/// What is wrong in the middle of births, at whatever moment the operator died.
pub(crate) fn out_of_order(
    snapshot: &Snapshot,
    reference: &Reference,
    trials: &[Trial],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let owned: BTreeMap<&str, &str> = snapshot
        .owners
        .iter()
        .map(|(id, record)| (record.owner.namespace.as_str(), id.as_str()))
        .collect();
    for trial in trials {
        let namespace = trial.namespace.as_str();
        let tenant = &snapshot.tenants[namespace];
        let guarded = tenant.finalizers().iter().any(|name| name == FINALIZER);
        let id = snapshot.id(namespace).map(|id| id.to_string());
        let objects = snapshot.of(namespace);
        if (id.is_some() || !objects.is_empty()) && !guarded {
            wrong.push(format!(
                "{trial}: something is made before the finalizer is set"
            ));
        }
        if !objects.is_empty() && id.is_none() {
            wrong.push(format!(
                "{trial}: objects before the identity: {:?}",
                objects.keys()
            ));
        }
        let claimed = owned.get(namespace).copied();
        if claimed.is_some() && claimed != id.as_deref() {
            wrong.push(format!(
                "{trial}: {claimed:?} is claimed, {id:?} is recorded"
            ));
        }
        if objects.contains_key("Deployment one") {
            let user = id
                .as_ref()
                .is_some_and(|id| snapshot.users.contains(id) && snapshot.roles.contains(id));
            let copied = id.as_ref().is_some_and(|id| {
                snapshot
                    .pool_keys
                    .contains(&format!("stoker.dev/escrow/{id}"))
            });
            if objects != reference.objects || !user || !copied {
                wrong.push(format!(
                    "{trial}: the Deployment is there before what it needs"
                ));
            }
        }
    }
    let recorded: BTreeSet<String> = trials
        .iter()
        .filter_map(|trial| Some(snapshot.id(&trial.namespace)?.to_string()))
        .collect();
    let known = |id: &&String| {
        recorded.contains(*id)
            || snapshot
                .id("reference")
                .is_some_and(|own| own.as_str() == id.as_str())
    };
    let strangers: Vec<&String> = snapshot
        .users
        .iter()
        .chain(&snapshot.roles)
        .filter(|id| !known(id))
        .collect();
    if !strangers.is_empty() {
        wrong.push(format!("users or roles of nobody: {strangers:?}"));
    }
    wrong
}

fn difference(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differs = |name: &&&String| one.get(**name) != other.get(**name);
    names
        .iter()
        .filter(differs)
        .map(|name| (*name).clone())
        .collect()
}
