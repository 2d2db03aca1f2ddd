//! Paths in the objects that a spec would give, as paths of the spec. Pure.

use k8s_openapi::api::core::v1::PodSpec;
use stoker_api::tenant::Tenant;
use stoker_control_plane::Trial;

const DEPLOYMENT: &str = "spec.controlPlane.deployment";
const SERVICE: &str = "spec.controlPlane.service";
const INGRESS: &str = "spec.controlPlane.ingress";
const NETWORK: &str = "spec.networkProfile";

/// The three components, in the order of their containers.
const COMPONENTS: [&str; 3] = ["apiServer", "controllerManager", "scheduler"];

/// Fields of the pod that the spec has under a name, most specific first.
const POD: [(&str, &str); 7] = [
    ("affinity", "affinity"),
    ("nodeSelector", "nodeSelector"),
    ("runtimeClassName", "runtimeClassName"),
    ("securityContext", "podSecurityContext"),
    ("serviceAccountName", "serviceAccountName"),
    ("tolerations", "tolerations"),
    ("topologySpreadConstraints", "topologySpreadConstraints"),
];

/// Fields of a component's container that the spec has per component.
const CONTAINER: [(&str, &str); 8] = [
    ("args", "extraArgs"),
    ("livenessProbe", "probes"),
    ("readinessProbe", "probes"),
    ("resources", "resources"),
    ("securityContext", "containerSecurityContexts"),
    ("startupProbe", "probes"),
    ("image", "registrySettings"),
    // As a whole, as when two are at one path.
    ("volumeMounts", "additionalVolumeMounts"),
];

/// Which object a path is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The Deployment.
    Deployment,
    /// The Service.
    Service,
    /// The Ingress.
    Ingress,
}

impl Part {
    /// The kind, for people.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::Ingress => "Ingress",
        }
    }
}

/// The path of the spec that `path` of the object comes from, where that is known.
pub(super) fn field(part: Part, path: &str, tenant: &Tenant, trial: &Trial) -> Option<String> {
    match part {
        Part::Deployment => deployment(path, tenant, trial),
        Part::Service => service(path),
        Part::Ingress => ingress(path),
    }
}

/// What follows `prefix` when the path goes through it: empty, or beginning with `.` or `[`.
fn under<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
}

/// The index and the rest of `list[3].rest`, or of `list[name="x"].rest` by the list's `names`.
fn item<'a>(path: &'a str, list: &str, names: &[&str]) -> Option<(usize, &'a str)> {
    let (selector, rest) = under(path, list)?.strip_prefix('[')?.split_once(']')?;
    let index = if let Ok(index) = selector.parse() {
        index
    } else {
        let name = selector.strip_prefix("name=")?.trim_matches('"');
        names.iter().position(|known| *known == name)?
    };
    Some((index, rest))
}

fn deployment(path: &str, tenant: &Tenant, trial: &Trial) -> Option<String> {
    let asked = &tenant.deployment;
    for (theirs, ours) in [
        ("metadata", "additionalMetadata"),
        ("spec.template.metadata", "podAdditionalMetadata"),
        ("spec.strategy", "strategy"),
        ("spec.replicas", "replicas"),
    ] {
        if let Some(rest) = under(path, theirs) {
            return Some(format!("{DEPLOYMENT}.{ours}{rest}"));
        }
    }
    let path = path.strip_prefix("spec.template.spec.")?;
    for (theirs, ours) in POD {
        if let Some(rest) = under(path, theirs) {
            return Some(format!("{DEPLOYMENT}.{ours}{rest}"));
        }
    }
    let pod = trial.deployment.spec.as_ref()?.template.spec.as_ref()?;
    let lists = Lists::of(pod);
    let added = |all: &[&str], own: usize| all.len().saturating_sub(own);
    let added_containers = added(&lists.containers, asked.additional_containers.0.len());
    if let Some((index, rest)) = item(path, "containers", &lists.containers) {
        return match index.checked_sub(added_containers) {
            Some(index) => Some(format!("{DEPLOYMENT}.additionalContainers[{index}]{rest}")),
            None => component(COMPONENTS.get(index)?, rest),
        };
    }
    for (theirs, ours, all, own) in [
        (
            "initContainers",
            "additionalInitContainers",
            &lists.init_containers,
            asked.additional_init_containers.0.len(),
        ),
        (
            "volumes",
            "additionalVolumes",
            &lists.volumes,
            asked.additional_volumes.0.len(),
        ),
    ] {
        if let Some((index, rest)) = item(path, theirs, all) {
            let index = index.checked_sub(added(all, own))?;
            return Some(format!("{DEPLOYMENT}.{ours}[{index}]{rest}"));
        }
    }
    // The list as a whole, as when two of it have one name.
    [
        ("containers", "additionalContainers"),
        ("initContainers", "additionalInitContainers"),
        ("volumes", "additionalVolumes"),
    ]
    .iter()
    .find(|(theirs, _)| *theirs == path)
    .map(|(_, ours)| format!("{DEPLOYMENT}.{ours}"))
}

/// Names of what a pod has several of, in order.
struct Lists<'a> {
    containers: Vec<&'a str>,
    init_containers: Vec<&'a str>,
    volumes: Vec<&'a str>,
}

impl<'a> Lists<'a> {
    fn of(pod: &'a PodSpec) -> Self {
        let init = pod.init_containers.iter().flatten();
        let volumes = pod.volumes.iter().flatten();
        Self {
            containers: pod.containers.iter().map(|one| one.name.as_str()).collect(),
            init_containers: init.map(|one| one.name.as_str()).collect(),
            volumes: volumes.map(|one| one.name.as_str()).collect(),
        }
    }
}

/// Of `.resources.limits`, what the spec says for the component.
fn component(component: &str, rest: &str) -> Option<String> {
    let path = rest.strip_prefix('.')?;
    // Its own files are mounted first.
    if let Some((index, rest)) = item(path, "volumeMounts", &[]) {
        let index = index.checked_sub(1)?;
        return Some(format!(
            "{DEPLOYMENT}.additionalVolumeMounts.{component}[{index}]{rest}"
        ));
    }
    CONTAINER.iter().find_map(|(theirs, ours)| {
        let rest = under(path, theirs)?;
        Some(match *ours {
            "registrySettings" => format!("{DEPLOYMENT}.registrySettings"),
            "extraArgs" => format!("{DEPLOYMENT}.extraArgs.{component}"),
            "probes" => {
                let probe = theirs.trim_end_matches("Probe");
                format!("{DEPLOYMENT}.probes.{component}.{probe}{rest}")
            }
            ours => format!("{DEPLOYMENT}.{ours}.{component}{rest}"),
        })
    })
}

fn service(path: &str) -> Option<String> {
    if let Some((index, rest)) = item(path, "spec.ports", &[]) {
        return Some(match index.checked_sub(1) {
            Some(index) => format!("{SERVICE}.additionalPorts[{index}]{rest}"),
            None => format!("{NETWORK}.port"),
        });
    }
    [
        ("metadata", SERVICE, "additionalMetadata"),
        ("spec.type", SERVICE, "serviceType"),
        ("spec.ipFamilies", SERVICE, "ipFamilies"),
        ("spec.ipFamilyPolicy", SERVICE, "ipFamilyPolicy"),
        (
            "spec.allocateLoadBalancerNodePorts",
            SERVICE,
            "allocateLoadBalancerNodePorts",
        ),
        ("spec.externalIPs", NETWORK, "address"),
        ("spec.loadBalancerClass", NETWORK, "loadBalancerClass"),
        (
            "spec.loadBalancerSourceRanges",
            NETWORK,
            "loadBalancerSourceRanges",
        ),
    ]
    .iter()
    .find_map(|(theirs, of, ours)| {
        let rest = under(path, theirs)?;
        let rest = if *ours == "address" { "" } else { rest };
        Some(format!("{of}.{ours}{rest}"))
    })
}

fn ingress(path: &str) -> Option<String> {
    [
        ("metadata", "additionalMetadata", true),
        ("spec.ingressClassName", "ingressClassName", true),
        ("spec.rules[0].host", "hostname", false),
    ]
    .iter()
    .find_map(|(theirs, ours, keeps)| {
        let rest = under(path, theirs)?;
        let rest = if *keeps { rest } else { "" };
        Some(format!("{INGRESS}.{ours}{rest}"))
    })
}

#[cfg(test)]
mod tests;
