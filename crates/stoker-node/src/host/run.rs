//! `stoker-node run`: what goes on as long as the machine is a node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use stoker_node::gpu;
use stoker_node::tunnel::{Config, Egress, FarEnd, Files};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Told;

use super::paths::{AUTHORITY, CERTIFICATE, Membership, SERVING};
use super::renew::{self, Renewal};
use super::unfinished::Unfinished;
use super::{follow, report};

/// Between two looks at the tenant's authorities, and at the machine.
const LOOK: Duration = Duration::from_mins(1);
/// Between two looks whether the machine still is this node.
const WATCH: Duration = Duration::from_secs(1);
/// How long open streams may run on at the end.
const DRAIN: Duration = Duration::from_secs(25);

/// Goes on as long as the machine is a node.
#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    told: Told,
}

/// Runs until `stop`, or until the machine is no longer this node: then at once, with whatever the tunnel still carries.
pub(crate) async fn run(args: &RunArgs, stop: impl Future<Output = ()>) -> Result<()> {
    let member = Membership::read()?;
    let member = member.context("this machine has joined nothing: stoker-node join")?;
    let (stopping, stopped) = watch::channel(false);
    let far_end = far_end(&member)?;
    let metrics = far_end.as_ref().map(FarEnd::metrics).unwrap_or_default();
    let tunnel = tunnel(far_end, stopped.clone());
    let stop = async {
        stop.await;
        stopping.send_replace(true);
    };
    let work = async { tokio::join!(tunnel, look(&member, stopped), stop) };
    tokio::select! {
        worked = args.told.while_running(metrics, work) => worked.map(drop)?,
        () = no_longer(&member, Membership::read) => {
            let (server, node) = (&member.server, &member.node);
            tracing::info!(server, node, "this machine is no longer this node with this tunnel");
        }
    }
    Ok(())
}

/// Until what is `read` says that the machine is not this node any more. What cannot be read says nothing.
async fn no_longer(member: &Membership, read: impl Fn() -> Result<Option<Membership>>) {
    loop {
        sleep(WATCH).await;
        match read() {
            Ok(Some(now)) if is_same(member, &now) => {}
            Ok(_) => return,
            Err(error) => tracing::warn!(error = format!("{error:#}"), "not known what it is"),
        }
    }
}

/// A machine whose Node is marked as left is none.
fn is_same(member: &Membership, now: &Membership) -> bool {
    member.server == now.server
        && member.node == now.node
        && member.tunnel == now.tunnel
        && !now.is_marked()
}

/// Where the join asked for one.
fn far_end(member: &Membership) -> Result<Option<FarEnd>> {
    let server = member.tunnel.as_deref().map(str::parse).transpose();
    let server = server.with_context(|| format!("{:?} is no tunnel", member.tunnel))?;
    Ok(server.map(|server| {
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
    }))
}

async fn tunnel(far_end: Option<FarEnd>, mut stopped: watch::Receiver<bool>) {
    let stop = async {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    match far_end {
        Some(far_end) => far_end.run(stop).await,
        None => stop.await,
    }
}

async fn look(member: &Membership, mut stopped: watch::Receiver<bool>) {
    let mut observer = gpu::Observer::default();
    let mut unfinished = Unfinished::default();
    let mut renewal = Renewal::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = looks.tick() => {}
        }
        // On the heap: it is as large as what it asks.
        match Box::pin(follow::once(member, &mut renewal)).await {
            Ok(true) => {
                tracing::info!("the kubelet has the authorities of now, and was restarted");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the tenant's authorities are not followed"
            ),
        }
        let leaving = Membership::read().ok().flatten();
        let is_old = unfinished.is_old(leaving.and_then(|member| member.leaving));
        let authority = renew::authority();
        let authority = authority.as_ref().map(|(pin, has)| (pin.as_str(), *has));
        match report::once(member, &mut observer, authority).await {
            Ok(node) if is_old => {
                if let Err(error) = unfinished.forget_if_back(&node) {
                    tracing::warn!(error = format!("{error:#}"), "leave is not forgotten");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "not told what the machine has"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;
    use tokio::time::timeout;

    use super::super::paths::Leaving;
    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_membership_that_it_began_with() {
        let text = r#"{ "server": "a:6443", "node": "w1", "tunnel": "a:8132", "joined": false }"#;
        let member: Membership = serde_json::from_str(text).unwrap();
        let joined = Membership {
            joined: true,
            ..member.clone()
        };
        let others = [
            None,
            Some(Membership {
                server: "b:6443".to_owned(),
                ..joined.clone()
            }),
            Some(Membership {
                tunnel: None,
                ..joined.clone()
            }),
            Some(Membership {
                leaving: Some(Leaving {
                    uid: "u".to_owned(),
                    cordoned: true,
                    marked: true,
                    told: false,
                }),
                ..joined.clone()
            }),
        ];
        for other in others {
            assert!(!other.as_ref().is_some_and(|other| is_same(&member, other)));
        }
        let now = RefCell::new(Some(joined));
        let read = || match &*now.borrow() {
            Some(member) => Ok(Some(member.clone())),
            None => bail!("it is being written"),
        };
        let mut ended = Box::pin(no_longer(&member, read));
        assert!(timeout(WATCH * 3 / 2, &mut ended).await.is_err());
        now.replace(None);
        assert!(timeout(WATCH, &mut ended).await.is_err());
        drop(ended);
        let ended = no_longer(&member, || Ok(None));
        assert!(timeout(WATCH * 2, ended).await.is_ok());
    }
}
