//! What keeps a control-plane pod from running, as its status says it. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt;

/// Reason of a pod that has ended for good, as by eviction.
const FAILED: &str = "PodFailed";
/// Why a container waits when nothing is wrong.
const USUAL: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// The image is pulled again and again: what is said alternates between the first two.
const IMAGE: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "ImageInspectError",
    "InvalidImageName",
    "RegistryUnavailable",
];
/// Stands before the cause in what is said between two pulls.
const PULLED_AGAIN: &str = "ErrImagePull: ";

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// CamelCase reason of the condition.
    pub reason: &'static str,
    /// Pod and container, and what Kubernetes says of them.
    pub message: String,
}

impl Trouble {
    /// Of a pod; `None` of one that runs or is on its way.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let (name, status) = (pod.name_any(), pod.status.as_ref()?);
        let found = failed(status).or_else(|| unscheduled(status));
        if let Some((reason, why)) = found {
            let message = format!("pod {name}: {why}");
            return Some(Self { reason, message });
        }
        let of_container = |container: &ContainerStatus| {
            let (reason, why) = stuck(container).or_else(|| crashed(container))?;
            let message = format!("container {} of pod {name}: {why}", container.name);
            Some(Self { reason, message })
        };
        let first = status.init_container_statuses.iter().flatten();
        let mut containers = first.chain(status.container_statuses.iter().flatten());
        containers.find_map(of_container)
    }

    /// Of a Deployment for which no pod is let in: a quota, an admission webhook.
    #[must_use]
    pub fn of_deployment(deployment: &Deployment) -> Option<Self> {
        let status = deployment.status.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        let failure =
            conditions.find(|found| found.type_ == "ReplicaFailure" && found.status == "True")?;
        let message = failure.message.as_deref().unwrap_or_default();
        // Before it stands the name that the pod would have had, another one each time.
        let why = message.split_once(" is forbidden: ");
        let why = why.map_or(message, |(_, why)| why);
        Some(Self {
            reason: "PodsNotCreated",
            message: format!("no control-plane pod can be created: {why}"),
        })
    }

    /// Whether the pod will never run: its place is another one's.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.reason == FAILED
    }

    /// Whether the two differ in nothing but numbers and ids, which change with every try.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let words = |text: &str| -> String {
            let words = text.chars().filter(|letter| !letter.is_ascii_hexdigit());
            words.collect()
        };
        self.reason == other.reason && words(&self.message) == words(&other.message)
    }
}

fn failed(status: &PodStatus) -> Option<(&'static str, String)> {
    if status.phase.as_deref() != Some("Failed") {
        return None;
    }
    Some((
        FAILED,
        said(status.reason.as_deref(), status.message.as_deref()),
    ))
}

fn unscheduled(status: &PodStatus) -> Option<(&'static str, String)> {
    let mut conditions = status.conditions.iter().flatten();
    let condition =
        conditions.find(|found| found.type_ == "PodScheduled" && found.status == "False")?;
    // What was tried to make room is of no help to who must make it.
    let message = condition.message.as_deref().unwrap_or_default();
    let message = message.split(" preemption: ").next();
    Some((
        "PodUnschedulable",
        said(condition.reason.as_deref(), message),
    ))
}

/// What keeps the container from being started.
fn stuck(container: &ContainerStatus) -> Option<(&'static str, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref();
    if USUAL.contains(&reason) || reason == "CrashLoopBackOff" {
        return None;
    }
    if !IMAGE.contains(&reason) {
        return Some(("ContainerNotCreated", said(Some(reason), message)));
    }
    let reason = if reason == "ErrImagePull" {
        "ImagePullBackOff"
    } else {
        reason
    };
    let cause = message.map(|text| text.split_once(PULLED_AGAIN).map_or(text, |(_, why)| why));
    let why = format!("image {}: {}", container.image, said(Some(reason), cause));
    Some(("ImageNotPulled", why))
}

/// How the container last ended, if it is not ready since: the same while it waits for its next start and while it
/// runs.
fn crashed(container: &ContainerStatus) -> Option<(&'static str, String)> {
    if container.ready {
        return None;
    }
    let states = [&container.state, &container.last_state];
    let mut ends = states.into_iter().flatten();
    let ended = ends.find_map(|state| state.terminated.as_ref())?;
    let why = said(ended.reason.as_deref(), ended.message.as_deref());
    let why = format!("it ended with exit code {}: {why}", ended.exit_code);
    Some(("ContainerCrashed", why))
}

fn said(reason: Option<&str>, message: Option<&str>) -> String {
    let message = message.unwrap_or_default().trim();
    let words: Vec<_> = message.split_whitespace().collect();
    match (reason, words.as_slice()) {
        (Some(reason), []) => reason.to_owned(),
        (Some(reason), words) => format!("{reason}: {}", words.join(" ")),
        (None, words) => words.join(" "),
    }
}

#[cfg(test)]
mod tests;
