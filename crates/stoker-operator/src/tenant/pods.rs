//! The control-plane pods of a tenant: where its API servers answer, and whether any is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use stoker_control_plane::RESTART_CHECKSUM;

use super::trouble::Trouble;

/// A tenant's pods by name.
#[derive(Debug, Default)]
pub struct Pods {
    by_name: BTreeMap<String, PodFacts>,
    troubles: BTreeMap<String, Trouble>,
}

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// Its address of the other family, where the cluster has two.
    pub second_ip: Option<IpAddr>,
    /// Whether its readiness probes pass.
    pub ready: bool,
    /// Whether it is being deleted.
    pub ending: bool,
    /// Whether none of its containers runs any more.
    pub over: bool,
    /// Of what it has read at its start.
    pub restart_checksum: Option<String>,
}

impl PodFacts {
    /// Reads them.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ip = status
            .and_then(|status| status.pod_ip.as_ref())
            .and_then(|ip| ip.parse().ok());
        let all = status.and_then(|status| status.pod_ips.as_ref());
        let all = all.into_iter().flatten();
        Self {
            ip,
            second_ip: all
                .filter_map(|found| found.ip.parse().ok())
                .find(|found| Some(*found) != ip),
            ready: conditions
                .into_iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            ending: pod.metadata.deletion_timestamp.is_some(),
            over: status
                .and_then(|status| status.phase.as_deref())
                .is_some_and(|phase| phase == "Succeeded" || phase == "Failed"),
            restart_checksum: pod.annotations().get(RESTART_CHECKSUM).cloned(),
        }
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.ip, self.second_ip].into_iter().flatten()
    }
}

impl Pods {
    /// Records a pod; returns whether that is news.
    pub fn saw(&mut self, pod: &Pod) -> bool {
        let (name, facts) = (pod.name_any(), PodFacts::of(pod));
        let trouble = Trouble::of(pod).filter(|_| !facts.ending);
        let before = self.troubles.get(&name);
        let same = match (before, &trouble) {
            (Some(before), Some(trouble)) => before.is_like(trouble),
            (before, trouble) => before.is_none() && trouble.is_none(),
        };
        if !same {
            self.troubles.remove(&name);
            self.troubles
                .extend(trouble.map(|trouble| (name.clone(), trouble)));
        }
        let before = self.by_name.insert(name.clone(), facts);
        before.as_ref() != self.by_name.get(&name) || !same
    }

    /// Records that a pod is gone; returns whether that is news.
    pub fn gone(&mut self, name: &str) -> bool {
        self.troubles.remove(name);
        self.by_name.remove(name).is_some()
    }

    /// Records that no other pods exist; returns whether that is news.
    pub fn keep_only(&mut self, names: &BTreeSet<String>) -> bool {
        let before = self.by_name.len();
        self.by_name.retain(|name, _| names.contains(name));
        self.troubles.retain(|name, _| names.contains(name));
        self.by_name.len() < before
    }

    /// Names of all pods.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Names and addresses of the pods that are not ending.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let alive = self.by_name.iter().filter(|(_, pod)| !pod.ending);
        alive.flat_map(|(name, pod)| pod.addresses().map(|ip| (name.as_str(), ip)))
    }

    /// The pods that a Service sends people to, and their addresses.
    #[must_use]
    pub fn serving(&self) -> BTreeMap<String, IpAddr> {
        let serving = self
            .by_name
            .iter()
            .filter(|(_, pod)| pod.ready && !pod.ending);
        serving
            .filter_map(|(name, pod)| Some((name.clone(), pod.ip?)))
            .collect()
    }

    /// Every pod in which an API server may run, whether it is ready, starts or ends.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, Option<IpAddr>> {
        let running = self.by_name.iter().filter(|(_, pod)| !pod.over);
        running.map(|(name, pod)| (name.clone(), pod.ip)).collect()
    }

    /// The pods in which something runs that has not read this at its start.
    pub fn of_another(&self, restart_checksum: &str) -> impl Iterator<Item = &str> {
        let running = self.by_name.iter().filter(|(_, pod)| !pod.over);
        let others = running
            .filter(move |(_, pod)| pod.restart_checksum.as_deref() != Some(restart_checksum));
        others.map(|(name, _)| name.as_str())
    }

    /// Whether no pod is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether a pod that is not ending has this address.
    #[must_use]
    pub fn serves(&self, ip: IpAddr) -> bool {
        self.by_name
            .values()
            .any(|pod| pod.ip == Some(ip) && !pod.ending)
    }

    /// Whether the pod at this address is ready.
    #[must_use]
    pub fn is_ready(&self, ip: IpAddr) -> bool {
        self.by_name
            .values()
            .any(|pod| pod.ip == Some(ip) && pod.ready && !pod.ending)
    }

    /// Whether a Service has a pod to send people to.
    #[must_use]
    pub fn any_ready(&self) -> bool {
        self.by_name.values().any(|pod| pod.ready && !pod.ending)
    }

    /// What keeps a pod from running, that of one which has failed for good last: another takes its place.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        let all = || self.troubles.values();
        all()
            .find(|trouble| !trouble.is_final())
            .or_else(|| all().next())
    }

    /// The best address to dial: a ready pod's, else one that is starting.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let candidates = || {
            self.by_name
                .values()
                .filter(|pod| !pod.ending && pod.ip.is_some())
        };
        candidates()
            .find(|pod| pod.ready)
            .or_else(|| candidates().next())?
            .ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, ready: bool, ending: bool) -> Pod {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": name },
            "status": {
                "podIP": ip,
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            },
        }))
        .unwrap();
        if ending {
            pod.metadata.deletion_timestamp = Some(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
            );
        }
        pod
    }

    #[test]
    fn a_ready_pod_is_dialled_before_one_that_starts_and_an_ending_one_never() {
        let mut pods = Pods::default();
        assert_eq!(pods.address(), None);
        pods.saw(&pod("a", "192.0.2.1", true, true));
        assert_eq!(pods.address(), None);
        pods.saw(&pod("b", "192.0.2.2", false, false));
        assert!(!pods.any_ready());
        assert_eq!(pods.address(), Some("192.0.2.2".parse().unwrap()));
        pods.saw(&pod("c", "192.0.2.3", true, false));
        assert!(pods.any_ready());
        assert_eq!(pods.address(), Some("192.0.2.3".parse().unwrap()));
    }

    #[test]
    fn only_changes_are_news() {
        let mut pods = Pods::default();
        assert!(pods.saw(&pod("a", "192.0.2.1", false, false)));
        assert!(!pods.saw(&pod("a", "192.0.2.1", false, false)));
        assert!(pods.saw(&pod("a", "192.0.2.1", true, false)));
        assert!(pods.gone("a"));
        assert!(!pods.gone("a"));
    }
}
