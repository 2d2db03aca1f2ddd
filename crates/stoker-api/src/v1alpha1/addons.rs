//! `spec.addons`: software that the operator installs inside the tenant cluster.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{REPOSITORY, TAG};
use super::{JsonPatch, Resources, Tolerations};

/// Where agents of the tunnel dial unless the spec says otherwise.
pub const DEFAULT_TUNNEL_PORT: i32 = 8132;

/// Software that the operator installs inside the tenant cluster. What is left out is not
/// installed, and removed when it was.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Addons {
    /// Cluster DNS.
    #[serde(default, rename = "coreDNS", skip_serializing_if = "Option::is_none")]
    pub core_dns: Option<Addon>,
    /// The Service proxy on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<KubeProxyAddon>,
    /// The tunnel: API servers reach nodes over connections that nodes open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub konnectivity: Option<Konnectivity>,
    /// The API server at an address of every node, for pods of tenants whose API servers are reached through Stoker's
    /// gateway, or by a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_listener: Option<NodeListener>,
}

/// A listener on every node, to which the Service `kubernetes` leads. It leads on to the API server: with service type
/// `ClusterIP`, a base domain and no address in `networkProfile` through the gateway, else to the addresses or the name that pods
/// would dial themselves.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeListener {
    /// Addresses that nodes are given for it, one of an IP family, which nothing else in the tenant's networks uses.
    /// Default: `192.0.0.64` and `fd53:746f:6b72::1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 45)))]
    #[x_kube(validation = Rule::new(
        "self.all(a, isIP(a) && ip(a).isGlobalUnicast()) && \
         (self.size() < 2 || ip(self[0]).family() != ip(self[1]).family())"
    ).message(
        "nodeListener.addresses must be IP addresses of different families, not loopback, link-local or multicast ones"
    ))]
    pub addresses: Vec<String>,
}

/// The tunnel from API servers to nodes: nodes dial out, and what API servers send into the tenant's network goes back
/// over these connections. Changing whether there is one replaces the control-plane pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Konnectivity {
    /// The tunnel's end in the control-plane pods, which is in their container `stoker-warden`.
    #[serde(default)]
    pub server: KonnectivityServer,
    /// What dials it, in the tenant's namespace `kube-system`.
    #[serde(default)]
    pub agent: KonnectivityAgent,
}

/// The tunnel's end in the control-plane pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KonnectivityServer {
    /// Port of the tenant's Service that agents dial. Of a `NodePort` Service it is the node port too, but for the
    /// default, with which the cluster picks one.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Resources of the container; what is not mentioned keeps Stoker's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

fn default_port() -> i32 {
    DEFAULT_TUNNEL_PORT
}

impl Default for KonnectivityServer {
    fn default() -> Self {
        Self {
            port: DEFAULT_TUNNEL_PORT,
            resources: None,
        }
    }
}

/// The agents in the tenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.replicas) || (self.mode == 'DaemonSet') == (self.replicas == 0)"
).message(
    "replicas must be 0 (or unset) when mode is DaemonSet, and greater than 0 (or unset) when mode is Deployment"
))]
pub struct KonnectivityAgent {
    /// Image of stoker-node, without its tag. Default: the operator's `--node-image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(
        validation = Rule::new(format!("self == '' || self.matches('{REPOSITORY}')")).message(
            "agent.image must be an image such as registry.example.com/stoker-node, without scheme and tag"
        ),
        validation = Rule::new("!self.endsWith('/proxy-agent')").message(
            "agent.image: konnectivity's own agent does not speak this tunnel's protocol: leave it out"
        )
    )]
    pub image: Option<String>,
    /// Tag of the image. Default: that of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(format!("self == '' || self.matches('{TAG}')")).message(
        "agent.version must be a tag: letters, digits and ._-"
    ))]
    pub version: Option<String>,
    /// Taints that agents tolerate. Default: `CriticalAddonsOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Tolerations>,
    /// More arguments: `--deny=NETWORK,…`, which agents do not dial, and `--allow=NETWORK,…`, the only ones that they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    #[x_kube(validation = Rule::new(
        "self.all(a, a.matches('^--(allow|deny)=') && a.split('=')[1].split(',').all(n, isCIDR(n)))"
    ).message(
        "arguments of an agent are --allow=NETWORK,… and --deny=NETWORK,…"
    ))]
    pub extra_args: Vec<String>,
    /// Whether agents use the node's own network, which is there before the cluster's is.
    #[serde(default)]
    pub host_network: bool,
    /// What runs the agents.
    #[serde(default)]
    pub mode: AgentMode,
    /// Agents of a Deployment. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Resources of an agent; what is not mentioned keeps Stoker's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// What runs the agents.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentMode {
    /// One on every node: each node is reached through its own.
    #[default]
    DaemonSet,
    /// Some, which reach the other nodes through the tenant's network.
    Deployment,
}

/// Where an add-on's image comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    /// Repository of the image, without the image's own name. Default: kubeadm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new(format!("self == '' || self.matches('{REPOSITORY}')")).message(
        "imageRepository must be a repository such as registry.example.com/mirror, without scheme"
    ))]
    pub image_repository: Option<String>,
    /// Tag of the image. Default: kubeadm's for the Kubernetes version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(format!("self == '' || self.matches('{TAG}')")).message(
        "imageTag must be a tag: letters, digits and ._-"
    ))]
    pub image_tag: Option<String>,
}

/// kube-proxy on every node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxyAddon {
    /// Where the image comes from.
    #[serde(flatten)]
    pub image: Addon,
    /// RFC 6902 patches applied to the `KubeProxyConfiguration` before it is published.
    #[serde(
        default,
        rename = "configurationJSONPatches",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 64))]
    pub configuration_json_patches: Vec<JsonPatch>,
}
