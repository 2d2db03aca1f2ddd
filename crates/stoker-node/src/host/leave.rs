//! `stoker-node leave`: what join made, undone, and nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::machine::Another;
use super::paths::{
    AUTHORITY, KUBECONFIG, KUBELET, KUBELET_CONFIG, Membership, ORDERS, STATE, remove,
};
use super::service::{self, AGENT_UNIT, KUBELET_DROP_IN};
use super::{containers, files, goodbye, orders, volumes};

/// Takes this machine out of its tenant.
#[derive(clap::Args, Debug)]
pub(crate) struct LeaveArgs {
    /// How long pods may take to go elsewhere, seconds; 0 does not ask them to.
    #[arg(long, default_value_t = 60)]
    drain_seconds: u64,

    /// Leave the containers of its pods alone: for a machine whose container runtime is gone. What they have of their pods'
    /// volumes is removed nevertheless.
    #[arg(long)]
    keep_containers: bool,
}

/// Leaves. What cannot be done with the API server away is left undone, and said.
pub(crate) async fn leave(args: LeaveArgs) -> Result<()> {
    let Some(mut member) = Membership::read()? else {
        tracing::info!("this machine has joined nothing");
        // The key of an attempt, perhaps.
        return Membership::forget();
    };
    if !member.let_in {
        tracing::info!("this machine was not let in; its attempt is forgotten");
        return Membership::forget();
    }
    ensure!(
        files::are_of(&member)?,
        "this machine was the node {:?} of {} and is another one now, by {KUBECONFIG}: nothing was changed. What is left of the first are \
         {STATE}, {AGENT_UNIT} and {KUBELET_DROP_IN}: stop stoker-node and remove them",
        member.node,
        member.server
    );
    let kubelet = volumes::real(Path::new(KUBELET))?;
    // Of those that go elsewhere now, the runtime may keep something for a while.
    let pods = kubelet.as_deref().map(containers::pods_of).transpose()?;
    // The kubelet's own word, which whoever runs this again does not find any more.
    if let Some(runtime) = files::runtime() {
        member.runtime = runtime;
        member.write()?;
    }
    let patience = Duration::from_secs(args.drain_seconds);
    if !member.is_marked()
        && let Err(error) = goodbye::drain(&mut member, patience).await
    {
        tracing::warn!(
            error = format!("{error:#}"),
            "its pods were not asked to go elsewhere"
        );
    }
    // Before the kubelet goes, so that nobody starts it again.
    remove(KUBELET_CONFIG)?;
    service::stop().await?;
    if let Some(kubelet) = &kubelet {
        if !args.keep_containers {
            let pods = pods.unwrap_or_default();
            containers::remove_pods(kubelet, pods, &member.runtime).await?;
        }
        volumes::free_mounts(kubelet).await?;
    }
    // Until here it may join again by its certificate; from now on another machine may have its name.
    match goodbye::mark(&mut member).await {
        Ok(()) => {}
        Err(error) if error.is::<Another>() => tracing::warn!("{error:#}"),
        Err(error) => tracing::warn!(
            error = format!("{error:#}"),
            "the tenant does not know that this node has left: kubectl delete node {}, unless another machine has its name by now",
            member.node
        ),
    }
    if let Err(error) = orders::forget(Path::new(ORDERS)) {
        tracing::warn!(
            error = format!("{error:#}"),
            "an address that its listener was given stays until the machine starts anew"
        );
    }
    remove(KUBECONFIG)?;
    remove(AUTHORITY)?;
    service::remove_units()?;
    if let Some(kubelet) = &kubelet {
        volumes::empty(kubelet)?;
    }
    Membership::forget()?;
    tracing::info!(
        node = member.node,
        "left; a Node that is marked as left is removed when a machine joins under its name"
    );
    Ok(())
}
