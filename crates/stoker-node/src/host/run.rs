//! `stoker-node run`: what goes on as long as the machine is a node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stoker_node::gpu;
use stoker_node::tunnel::{Config, Egress, FarEnd, Files};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::paths::{AUTHORITY, CERTIFICATE, Membership, SERVING};
use super::{follow, report};

/// Between two looks at the tenant's authorities, and at the machine.
const LOOK: Duration = Duration::from_mins(1);
/// How long open streams may run on at the end.
const DRAIN: Duration = Duration::from_secs(25);

/// Runs until `stop`.
pub(crate) async fn run(stop: impl Future<Output = ()>) -> Result<()> {
    let member = Membership::read()?;
    let member = member.context("this machine has joined nothing: stoker-node join")?;
    let (stopping, stopped) = watch::channel(false);
    let tunnel = tunnel(&member, stopped.clone())?;
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    tokio::join!(tunnel, look(&member, stopped), stop);
    Ok(())
}

/// Where the join asked for one.
fn tunnel(
    member: &Membership,
    mut stopped: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>> {
    let server = member.tunnel.as_deref().map(str::parse).transpose();
    let server = server.with_context(|| format!("{:?} is no tunnel", member.tunnel))?;
    let far_end = server.map(|server| {
        FarEnd::new(Config {
            server,
            files: Files {
                server_ca: PathBuf::from(AUTHORITY),
                client_certificate: PathBuf::from(CERTIFICATE),
                node_certificate: PathBuf::from(SERVING),
            },
            egress: Egress::new(Vec::new(), Vec::new()),
            drain: DRAIN,
        })
    });
    Ok(async move {
        let stop = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        match far_end {
            Some(far_end) => far_end.run(stop).await,
            None => stop.await,
        }
    })
}

async fn look(member: &Membership, mut stopped: watch::Receiver<bool>) {
    let mut observer = gpu::Observer::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = looks.tick() => {}
        }
        match follow::authorities_once(member).await {
            Ok(true) => tracing::info!("the tenant's authorities have changed, and are believed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "authorities not looked at"),
        }
        if let Err(error) = report::once(member, &mut observer).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "not told what the machine has"
            );
        }
    }
}
