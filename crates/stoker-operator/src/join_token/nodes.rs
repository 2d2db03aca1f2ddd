//! The Nodes of machines that join.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Client, ResourceExt};
use stoker_api::labels::{GPU_COUNT, GPU_HEALTHY, GPU_MEMORY, GPU_PRODUCT, JOINING, LEFT};
use stoker_api::v1alpha1::{JoinToken, JoinedDevices, JoinedNode, NodeTaint};
use stoker_kube::NodeFound;

use super::attend::DAY;
use super::reconcile::Error;
use super::status;
use crate::context::Context;

/// Value of the taint of devices that are to come.
const PENDING: &str = "pending";

/// Whether there is no Node `name`. One that has left (`stoker-node leave` says so on it, with its own credential) is
/// removed.
pub(super) async fn make_room(client: &Client, name: &str) -> Result<bool, Error> {
    let found = stoker_kube::node(client, name).await;
    let Some(found) = found.map_err(Error::Inside)? else {
        return Ok(true);
    };
    if !found.annotations.contains_key(LEFT) {
        return Ok(false);
    }
    let deleted = stoker_kube::delete_node(client, name, &found).await;
    deleted.map_err(Error::Inside)?;
    tracing::info!(node = name, "Node removed, which had left");
    Ok(true)
}

/// Gives the Node of a machine that was let in its labels and taints, takes the joining taint off it, and those of its
/// devices when they are there; false while there is something left to do. Labels and taints are recorded once given, and
/// not given again: what a tenant changes of them later is the tenant's. So are the taints of devices that have not come
/// when it `is_late`, a day after it was let in; a Node that came as late is this machine's only if it has the taint of one
/// that joins.
pub(super) async fn equip(
    token: &JoinToken,
    joined: &JoinedNode,
    is_late: bool,
    client: &Client,
    ctx: &Context,
) -> Result<bool, Error> {
    let name = &joined.name;
    let found = stoker_kube::node(client, name).await;
    let Some(found) = found.map_err(Error::Inside)? else {
        return Ok(false);
    };
    let is_new = joined.registration_time.is_none();
    let joins = found.taints.iter().any(|taint| taint.key == JOINING);
    let came_late = found
        .created
        .is_some_and(|came| came.duration_since(joined.admission_time.0) >= DAY);
    if is_new && came_late && !joins {
        return Ok(false);
    }
    let pending = pending(&token.spec.devices, &found.allocatable);
    let none = BTreeMap::new();
    let (labels, wanted) = match joined.registration_time {
        None => (&token.spec.labels, token.spec.taints.as_slice()),
        Some(_) => (&none, [].as_slice()),
    };
    let mut taints = taints(&found.taints, wanted, &token.spec.devices, &pending);
    if is_late && !is_new {
        only_fewer(&mut taints, &found.taints);
    }
    let has_labels = labels
        .iter()
        .all(|(key, value)| found.labels.get(key) == Some(value));
    if !has_labels || taints != found.taints {
        stoker_kube::equip_node(client, name, &found, labels, &taints)
            .await
            .map_err(Error::Inside)?;
    }
    let mut done = joined.clone();
    done.registration_time
        .get_or_insert_with(|| Time(Timestamp::now()));
    if pending.is_empty() && !token.spec.devices.is_empty() {
        done.devices = Some(devices(&token.spec.devices, &found));
    }
    if done != *joined {
        record(token, joined, &done, ctx).await?;
    }
    Ok(pending.is_empty())
}

async fn record(
    token: &JoinToken,
    joined: &JoinedNode,
    done: &JoinedNode,
    ctx: &Context,
) -> Result<(), Error> {
    let Some(latest) = status::read(token, ctx).await? else {
        return Ok(());
    };
    let old = latest.status.clone().unwrap_or_default();
    let mut new = old.clone();
    for node in new.nodes.iter_mut().filter(|node| *node == joined) {
        node.clone_from(done);
    }
    stoker_kube::replace_status(&ctx.client, &latest, Some(&old), &new)
        .await
        .map_err(Error::Write)?;
    let devices = done.devices.is_some();
    tracing::info!(
        token = token.name_any(),
        node = done.name,
        devices,
        "node registered"
    );
    Ok(())
}

/// Names of the devices of which too few can be given to pods.
fn pending<'a>(
    wanted: &'a BTreeMap<String, i64>,
    allocatable: &BTreeMap<String, i64>,
) -> Vec<&'a str> {
    let too_few =
        |(name, count): &(&String, &i64)| allocatable.get(*name).copied().unwrap_or(0) < **count;
    wanted
        .iter()
        .filter(too_few)
        .map(|(name, _)| name.as_str())
        .collect()
}

/// Those that are there and those of the token, of which each key and effect is there once; none that says that it joins,
/// and for each device that is to come one that says so, by which NVIDIA's and others' plugins are not kept away.
fn taints(
    found: &[Taint],
    wanted: &[NodeTaint],
    devices: &BTreeMap<String, i64>,
    pending: &[&str],
) -> Vec<Taint> {
    let same = |one: &Taint, other: &Taint| one.key == other.key && one.effect == other.effect;
    let is_pending =
        |taint: &Taint| devices.contains_key(&taint.key) && taint.value.as_deref() == Some(PENDING);
    let mut taints: Vec<Taint> = wanted.iter().map(NodeTaint::taint).collect();
    let own = taints.clone();
    let kept = found.iter().filter(|taint| {
        taint.key != JOINING && !is_pending(taint) && !own.iter().any(|own| same(own, taint))
    });
    taints.splice(0..0, kept.cloned());
    let of_device = pending.iter().map(|name| Taint {
        key: (*name).to_owned(),
        value: Some(PENDING.to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    });
    for taint in of_device {
        if !taints.iter().any(|other| same(other, &taint)) {
            taints.push(taint);
        }
    }
    taints
}

/// None that is not there already.
fn only_fewer(taints: &mut Vec<Taint>, found: &[Taint]) {
    taints.retain(|taint| found.contains(taint));
}

/// What the Node says of the devices, some of it by labels that the agent on the machine writes.
fn devices(wanted: &BTreeMap<String, i64>, found: &NodeFound) -> JoinedDevices {
    let label = |name: &str| found.labels.get(name);
    let number = |name: &str| label(name).and_then(|text| text.parse().ok());
    let allocatable = found.allocatable.clone().into_iter();
    JoinedDevices {
        allocatable: allocatable
            .filter(|(name, _)| wanted.contains_key(name))
            .collect(),
        product: label(GPU_PRODUCT).cloned(),
        memory_mib: number(GPU_MEMORY),
        count: number(GPU_COUNT),
        healthy: number(GPU_HEALTHY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoker_api::v1alpha1::TaintEffect;

    #[test]
    fn the_tokens_taints_take_the_place_of_the_joining_one() {
        let taint = |key: &str, value: Option<&str>| Taint {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        let wanted = NodeTaint {
            key: "gpu".to_owned(),
            value: "yes".to_owned(),
            effect: TaintEffect::NoSchedule,
        };
        let found = [
            taint(JOINING, None),
            taint("gpu", None),
            taint("node.kubernetes.io/not-ready", None),
        ];
        assert_eq!(
            taints(&found, &[wanted], &BTreeMap::new(), &[]),
            [
                taint("node.kubernetes.io/not-ready", None),
                taint("gpu", Some("yes")),
            ]
        );
    }
    #[test]
    fn a_device_that_is_to_come_keeps_pods_away_until_it_is_there() {
        let devices = BTreeMap::from([("nvidia.com/gpu".to_owned(), 8)]);
        let with = |count| {
            pending(
                &devices,
                &BTreeMap::from([("nvidia.com/gpu".to_owned(), count)]),
            )
        };
        assert_eq!(pending(&devices, &BTreeMap::new()), ["nvidia.com/gpu"]);
        assert_eq!(with(7), ["nvidia.com/gpu"]);
        assert!(with(8).is_empty());

        let waits = taints(&[], &[], &devices, &with(7));
        let waits = waits.as_slice();
        assert!(
            matches!(waits, [taint] if taint.key == "nvidia.com/gpu" && taint.effect == "NoSchedule"),
            "{waits:?}"
        );
        assert_eq!(taints(waits, &[], &devices, &with(7)), waits, "once");
        assert_eq!(taints(waits, &[], &devices, &with(8)), []);
        // A day later it stays as it is, until the devices are there, or a person takes it off.
        let late = |found: &[Taint], count| {
            let mut taints = taints(found, &[], &devices, &with(count));
            only_fewer(&mut taints, found);
            taints
        };
        assert_eq!(late(&[], 7), []);
        assert_eq!(late(waits, 7), waits);
        assert_eq!(late(waits, 8), []);
        // Whoever keeps GPU nodes for GPU pods has the same key for good.
        let own = NodeTaint {
            key: "nvidia.com/gpu".to_owned(),
            value: "present".to_owned(),
            effect: TaintEffect::NoSchedule,
        };
        let kept = taints(&[], std::slice::from_ref(&own), &devices, &with(7));
        assert_eq!(kept, [own.taint()]);
        assert_eq!(taints(&kept, &[], &devices, &with(8)), kept);
    }
}
