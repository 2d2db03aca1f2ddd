//! `stoker-node run`: what goes on as long as the machine is a node.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stoker_node::gpu;
use stoker_node::tunnel::{Config, Egress, FarEnd, Files, Metrics};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Told;

use super::handover::{self, Asked};
use super::join::authorities;
use super::listening::{self, Keeper};
use super::paths::{AUTHORITY, CERTIFICATE, LISTENER, Membership, SERVING};
use super::renew::{self, Renewal};
use super::report::Own;
use super::unfinished::Unfinished;
use super::{follow, report};

/// Between two looks at the tenant's authorities, and at the machine.
const LOOK: Duration = Duration::from_mins(1);
/// The same at first, as long as the Node has not come; and for how long that is waited for.
const FIRST: (Duration, Duration) = (Duration::from_secs(3), Duration::from_mins(2));
/// Between two looks whether the machine still is this node.
const WATCH: Duration = Duration::from_secs(1);
/// Between two looks whether the tunnel is up.
const UP: Duration = Duration::from_millis(100);
/// How long open streams of the tunnel may run on at the end.
const DRAIN: Duration = Duration::from_secs(25);

/// Goes on as long as the machine is a node.
#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    told: Told,
}

/// Why it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is told to. Until the tunnel has nothing more to carry the listener listens: nobody else does.
    Stopped,
    /// Another process does everything from now on.
    Succeeded,
}

/// Runs until `stop`, or until a successor has taken over, or until the machine is no longer this node: then at once, with whatever
/// it still carries.
pub(crate) async fn run(args: &RunArgs, stop: impl Future<Output = ()>) -> Result<()> {
    let mut asked = Asked::wait()?;
    let member = Membership::read()?;
    let member = member.context("this machine has joined nothing: stoker-node join")?;
    let (ending, ended) = watch::channel(None);
    let (looking, looked) = watch::channel(false);
    let far_end = far_end(&member)?;
    let metrics = far_end.as_ref().map(FarEnd::metrics);
    let keeper = Keeper::begin(Path::new(LISTENER));
    let tunnel = tunnel(far_end, ended.clone());
    let end = async {
        let mut stop = pin!(stop);
        tokio::select! {
            () = &mut stop => {
                ending.send_replace(Some(End::Stopped));
                std::future::pending().await
            }
            mut successor = asked.succeeded() => {
                ending.send_replace(Some(End::Succeeded));
                // systemd does not watch it as long as it is this process's child.
                tokio::select! {
                    _ = successor.wait() => "who took over has ended",
                    () = stop => "it is told to end, and who took over too",
                }
            }
        }
    };
    let succeeded = until_succeeded(ended.clone());
    let work = async {
        // The listener goes when all else has gone, unless it has gone first.
        let (_keeper, ()) = tokio::join!(look(&member, keeper, looking, ended), tunnel);
    };
    let told = metrics.clone().unwrap_or_default();
    tokio::select! {
        worked = args.told.while_running(told, succeeded, work) => worked?,
        why = end => tracing::info!("what this process carries is cut: {why}"),
        never = up(metrics, looked) => match never? {},
        () = no_longer(&member, Membership::read) => {
            let (server, node) = (&member.server, &member.node);
            tracing::info!(server, node, "this machine is no longer this node with this tunnel");
        }
    }
    Ok(())
}

async fn until_succeeded(mut ended: watch::Receiver<Option<End>>) {
    let succeeded = ended.wait_for(|reason| *reason == Some(End::Succeeded));
    if succeeded.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Who takes over from another process says so once it has `looked`, and has the tunnel that it is to have.
async fn up(
    metrics: Option<Arc<Metrics>>,
    mut looked: watch::Receiver<bool>,
) -> Result<Infallible> {
    if handover::succeeds() {
        let begun = Instant::now();
        // It looks as long as it runs.
        let _ = looked.wait_for(|looked| *looked).await;
        while metrics
            .as_ref()
            .is_some_and(|metrics| !metrics.is_connected())
        {
            ensure!(
                begun.elapsed() < handover::COMES_UP,
                "no tunnel within {:?}: who ran before goes on",
                handover::COMES_UP
            );
            sleep(UP).await;
        }
        handover::announce()?;
    }
    std::future::pending().await
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

async fn tunnel(far_end: Option<FarEnd>, mut ended: watch::Receiver<Option<End>>) {
    let stop = async {
        let _ = ended.wait_for(Option::is_some).await;
    };
    match far_end {
        Some(far_end) => far_end.run(stop).await,
        None => stop.await,
    }
}

/// Looks until the end; the listener is still open then, unless another process has one.
async fn look(
    member: &Membership,
    mut keeper: Keeper,
    looking: watch::Sender<bool>,
    mut ended: watch::Receiver<Option<End>>,
) -> Keeper {
    let begun = Instant::now();
    let mut looks = Looks::default();
    loop {
        let told = looks.once(member, &mut keeper).await;
        looking.send_replace(true);
        let (first, patience) = FIRST;
        let is_early = !told && begun.elapsed() < patience;
        let reason = tokio::select! {
            reason = ended.wait_for(Option::is_some) => reason.ok().and_then(|reason| *reason),
            () = sleep(if is_early { first } else { LOOK }) => continue,
        };
        if reason == Some(End::Succeeded) {
            keeper.end(listening::DRAIN).await;
        }
        return keeper;
    }
}

/// What one look knows of those before it.
#[derive(Default)]
struct Looks {
    observer: gpu::Observer,
    unfinished: Unfinished,
    renewal: Renewal,
}

impl Looks {
    /// Does what the tenant asks, and tells it what is here; whether it was told.
    async fn once(&mut self, member: &Membership, keeper: &mut Keeper) -> bool {
        let asked = async || follow::published(&member.server, &authorities()?).await;
        // On the heap: it is as large as what it asks.
        let (authorities, listens) = match Box::pin(asked()).await {
            Ok(now) => {
                let followed = now.orders.and_then(|orders| keeper.follow(orders.listener));
                let listens = followed.unwrap_or_else(|error| {
                    warn(&error, "the listener is not what the tenant asks for");
                    false
                });
                (Ok(now.authorities), listens)
            }
            Err(error) => (Err(error), keeper.listens()),
        };
        match Box::pin(follow::once(member, authorities, &mut self.renewal)).await {
            Ok(true) => {
                tracing::info!("the kubelet has the authorities of now, and was restarted");
            }
            Ok(false) => {}
            Err(error) => warn(&error, "the tenant's authorities are not followed"),
        }
        let leaving = Membership::read().ok().flatten();
        let is_old = self
            .unfinished
            .is_old(leaving.and_then(|member| member.leaving));
        let authority = renew::authority();
        let own = Own {
            listens,
            authority: authority.as_ref().map(|(pin, has)| (pin.as_str(), *has)),
        };
        match report::once(member, &mut self.observer, own).await {
            Ok(node) => {
                if is_old && let Err(error) = self.unfinished.forget_if_back(&node) {
                    warn(&error, "leave is not forgotten");
                }
                true
            }
            Err(error) => {
                warn(&error, "not told what the machine has");
                false
            }
        }
    }
}

fn warn(error: &anyhow::Error, what: &str) {
    tracing::warn!(error = format!("{error:#}"), "{what}");
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
