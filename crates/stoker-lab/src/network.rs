//! The network daemon of a lab host: `NetworkPolicy` enforcement and `LoadBalancer` addresses.
//!
//! The bridge CNI plugin enforces no `NetworkPolicy` and nothing on a bare machine hands out addresses
//! to Services of type `LoadBalancer`. [`run`] does both, from the API alone, inside the network
//! namespace of the host it is started in. Nothing of Stoker's operator depends on it.
//!
//! ```text
//! Pods, Namespaces, NetworkPolicies ─► compile() ─► nft -f -      (one transaction per change)
//! CNI results on disk ────────────────────┘         (addresses the kubelet has not reported yet)
//! Services ─► plan() ─► ip address add …/32 or /128, Service status
//! ```

mod cni;
mod compile;
mod direction;
mod enforcer;
mod facts;
mod follow;
mod load_balancer;
mod matches;
mod nft;
mod plan;
mod range;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

pub use compile::{Ruleset, compile};
pub use facts::{CniAddresses, NamedPort, NamespaceLabels, PodFacts, PodKey, namespace_labels};
pub use plan::{Plan, ServiceKey, plan};
pub use range::AddressRange;

/// Arguments of the network daemon.
#[derive(Args, Clone, Debug)]
pub struct NetworkArgs {
    /// Kubeconfig of the cluster that this host belongs to. It may be an administrator's: the daemon
    /// reads pods, namespaces, network policies and services, and writes Service status.
    #[arg(long, env = "STOKER_LAB_KUBECONFIG")]
    pub kubeconfig: PathBuf,
    /// Name of this host's Node; only pods bound to it are isolated here.
    #[arg(long, env = "STOKER_LAB_NODE_NAME")]
    pub node_name: String,
    /// Interface that receives the single addresses of `LoadBalancer` Services.
    #[arg(long, env = "STOKER_LAB_INTERFACE", default_value = "eth0")]
    pub interface: String,
    /// Bridge of the pods (the CNI plugin's `bridge`); IPv6 link-local traffic from it is dropped
    /// while any pod is isolated, because no pod can be told from such an address.
    #[arg(long, env = "STOKER_LAB_POD_INTERFACE", default_value = "cni0")]
    pub pod_interface: String,
    /// Addresses for `LoadBalancer` Services, `192.0.2.0/24` or `192.0.2.10-192.0.2.99`, comma-separated
    /// one range per IP family. Without it Services are left alone: only one host of a cluster may have it.
    #[arg(
        long = "load-balancer-range",
        env = "STOKER_LAB_LOAD_BALANCER_RANGE",
        value_delimiter = ','
    )]
    pub load_balancer_ranges: Vec<AddressRange>,
    /// Folder of libcni's result cache, as this process sees it. Pods are filtered from the moment
    /// their address is there, up to a second before the kubelet reports it.
    #[arg(
        long,
        env = "STOKER_LAB_CNI_RESULTS",
        default_value = "/var/lib/cni/results"
    )]
    pub cni_results: PathBuf,
}

/// Runs the daemon until SIGTERM or SIGINT, then removes its packet filter.
///
/// The addresses of Services stay: they belong to the Services, and the next start reads them back
/// from their status.
///
/// # Errors
/// When the kubeconfig cannot be used, bridged packets cannot be filtered on this host, or one of the
/// two parts ends. An API server that does not answer is waited for.
pub async fn run(args: NetworkArgs) -> anyhow::Result<()> {
    // Another part of the process may have installed either already.
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    filter_bridged_packets(Path::new("/proc/sys/net/bridge"))?;
    let client = connect(&args.kubeconfig).await?;

    let balance = async {
        if args.load_balancer_ranges.is_empty() {
            return std::future::pending().await;
        }
        load_balancer::balance(client.clone(), &args.load_balancer_ranges, &args.interface).await
    };
    let outcome = tokio::select! {
        outcome = enforcer::enforce(client.clone(), &args) => outcome,
        outcome = balance => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    nft::remove(compile::TABLE).await?;
    nft::remove(load_balancer::TABLE).await?;
    outcome
}

async fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("read kubeconfig {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use kubeconfig {}", kubeconfig.display()))?;
    Client::try_from(config).context("make a client for the cluster")
}

/// Sends packets between pods of one bridge through the inet hooks; per network namespace.
fn filter_bridged_packets(folder: &Path) -> anyhow::Result<()> {
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = folder.join(name);
        std::fs::write(&path, "1").with_context(|| {
            format!(
                "write {} (load the kernel module br_netfilter)",
                path.display()
            )
        })?;
    }
    Ok(())
}
