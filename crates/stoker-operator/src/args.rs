//! Command line of the operator. Every flag has an environment variable.

use std::net::{IpAddr, SocketAddr};

use clap::{Parser, Subcommand};
use ipnet::IpNet;
use stoker_api::BaseDomain;

/// Runs tenant control planes on this cluster.
#[derive(Parser, Debug, Clone)]
#[command(name = "stoker-operator", version)]
pub struct Args {
    /// Something else than to run.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// `DataStore` for tenants that name none. Left out, the only one there is.
    #[arg(long, env = "STOKER_DATASTORE")]
    pub datastore: Option<String>,

    /// Domain under which every tenant has a name of its own, `<storage id>.<base domain>`, that nodes
    /// and people dial whatever its address is; you make the DNS records. It is in certificates,
    /// kubeconfigs and tokens: choose it once. A tenant restarts when it is first given.
    #[arg(long, env = "STOKER_BASE_DOMAIN")]
    pub base_domain: Option<BaseDomain>,

    /// Work only while holding the lease `stoker` in the operator's namespace; needed with more
    /// than one replica.
    #[arg(long, env = "STOKER_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Address that serves Prometheus metrics at /metrics.
    #[arg(
        long,
        env = "STOKER_METRICS_BIND_ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub metrics_bind_address: SocketAddr,

    /// Address that serves /healthz and /readyz.
    #[arg(
        long,
        env = "STOKER_HEALTH_BIND_ADDRESS",
        default_value = "0.0.0.0:8081"
    )]
    pub health_bind_address: SocketAddr,

    /// Address that serves the validating webhook. Left out, there is none. What API servers dial is read from the
    /// `ValidatingWebhookConfiguration` `stoker-operator`, whose `caBundle` is kept.
    #[arg(long, env = "STOKER_WEBHOOK_BIND_ADDRESS")]
    pub webhook_bind_address: Option<SocketAddr>,

    /// Networks of the management cluster (nodes, pods, Services), comma-separated, that
    /// control-plane pods must not reach. Left out, they are read from the Nodes and `ServiceCIDR`s;
    /// give them on clusters with very many nodes, or whose pod networks the Nodes do not name. The
    /// endpoints of the management API server itself are read, and closed, in any case.
    #[arg(long, env = "STOKER_MANAGEMENT_CIDRS", value_delimiter = ',')]
    pub management_cidrs: Vec<IpNet>,

    /// Image of the warden, the one process of Stoker's own in control-plane pods. Its version is its own:
    /// another image restarts every tenant's control plane.
    #[arg(
        long,
        env = "STOKER_WARDEN_IMAGE",
        default_value = "stoker.dev/stoker-warden:v0.1.0"
    )]
    pub warden_image: String,

    /// Image of stoker-node, which the agents of the tunnel in tenants run unless their spec names another.
    #[arg(
        long,
        env = "STOKER_NODE_IMAGE",
        default_value = "stoker.dev/stoker-node:v0.1.0"
    )]
    pub node_image: String,

    /// Tenants worked on at the same time.
    #[arg(long, env = "STOKER_MAX_CONCURRENT_RECONCILES", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_concurrent_reconciles: u16,

    /// Log as JSON lines instead of text.
    #[arg(long, env = "STOKER_LOG_JSON", default_value_t = false)]
    pub log_json: bool,

    /// Name of this pod: the holder's identity in the lease and in events.
    #[arg(long, env = "POD_NAME", default_value = "stoker-operator")]
    pub pod_name: String,

    /// Addresses of this pod, comma-separated, to check what the Nodes say of the pod networks against.
    #[arg(long, env = "POD_IPS", value_delimiter = ',')]
    pub pod_ips: Vec<IpAddr>,

    /// Namespace of the operator: where its lease and the keys of retained data are.
    #[arg(long, env = "POD_NAMESPACE", default_value = "stoker-system")]
    pub pod_namespace: String,
}

/// What the operator's program does besides.
#[derive(Subcommand, Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Print the manifests of a pool's tenants, from the copies in it, to be applied on a new management cluster. Needs
    /// the escrow key of the old one.
    Recover {
        /// The `DataStore` of the pool, as it is on the new cluster.
        data_store: String,
    },
}
