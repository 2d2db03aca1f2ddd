//! `stoker-node run`: what goes on as long as the machine is a node.

use std::convert::Infallible;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use stoker_node::gpu;
use stoker_node::tunnel::Metrics;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Told;

use super::handover::{self, Asked};
use super::join::authorities;
use super::orders::{Doing, Done};
use super::paths::{Membership, ORDERS};
use super::renew::{self, Renewal};
use super::report::Own;
use super::tunnelling::Tunnelling;
use super::unfinished::Unfinished;
use super::{files, follow, report, warn};

/// Between two looks at the tenant's authorities, and at the machine.
const LOOK: Duration = Duration::from_mins(1);
/// The same for the Node, as long as it has not come; and for how long that is waited for.
const COMES: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks whether the machine still is this node.
const WATCH: Duration = Duration::from_secs(1);

/// Goes on as long as the machine is a node.
#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    told: Told,
}

/// Why it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is told to.
    Stopped,
    /// Another process does everything from now on.
    Succeeded,
}

/// Runs until `stop`, or until a successor has taken over, or until the machine is no longer this node: then at once, with whatever
/// it still carries.
pub(crate) async fn run(args: &RunArgs, stop: impl Future<Output = ()>) -> Result<ExitCode> {
    let mut asked = Asked::wait()?;
    let member = Membership::read()?;
    let member = member.context("this machine has joined nothing: stoker-node join")?;
    let metrics = Arc::<Metrics>::default();
    let (ending, ended) = watch::channel(None);
    let tunnelling = Tunnelling::new(member.tunnel.clone(), metrics.clone());
    let mut doing = Doing::new(Path::new(ORDERS), tunnelling);
    if !files::are_of(&member)? {
        doing.withdraw();
        let (node, server) = (member.node, member.server);
        bail!(
            "this machine was the node {node:?} of {server} and is another one now: stoker-node leave"
        );
    }
    let end = async {
        let mut stop = pin!(stop);
        tokio::select! {
            () = &mut stop => {
                ending.send_replace(Some(End::Stopped));
                std::future::pending().await
            }
            mut successor = asked.succeeded(|| metrics.is_connected()) => {
                ending.send_replace(Some(End::Succeeded));
                tokio::select! {
                    status = successor.failed() => anyhow!("who took over has ended: {status}"),
                    // So is who took over, by whoever ends the service.
                    () = stop => anyhow!("told to end"),
                }
            }
        }
    };
    let succeeded = Some(until_succeeded(ended.clone()));
    let work = work(&member, &mut doing, ended);
    tokio::select! {
        worked = args.told.while_running(metrics.clone(), succeeded, work) => return worked?,
        error = end => return Err(error.context("what this process still carried is cut")),
        () = no_longer(&member, membership) => {}
    }
    let (server, node) = (&member.server, &member.node);
    tracing::info!(
        server,
        node,
        "this machine is no longer this node with this tunnel"
    );
    // With another tunnel it is the same node, which is about to start this anew.
    let now = membership();
    if !now.is_ok_and(|now| now.is_some_and(|now| is_same_node(&member, &now))) {
        doing.withdraw();
    }
    Ok(ExitCode::SUCCESS)
}

async fn until_succeeded(mut ended: watch::Receiver<Option<End>>) {
    let succeeded = ended.wait_for(|reason| *reason == Some(End::Succeeded));
    if succeeded.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Looks and does until the end.
async fn work(
    member: &Membership,
    doing: &mut Doing,
    mut ended: watch::Receiver<Option<End>>,
) -> Result<ExitCode> {
    // Whatever it is in the middle of, it goes on with after a restart.
    let reason = tokio::select! {
        reason = ended.wait_for(Option::is_some) => reason.ok().and_then(|reason| *reason),
        failed = go_on(member, doing) => match failed? {},
    };
    if reason == Some(End::Succeeded) {
        doing.hand_over().await;
        return Ok(handover::succeeded());
    }
    doing.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn go_on(member: &Membership, doing: &mut Doing) -> Result<Infallible> {
    match handover::succeeds() {
        Some(is_connected) => {
            doing.come_up(is_connected).await?;
            handover::announce();
        }
        None => doing.begin(),
    }
    let begun = Instant::now();
    let mut looks = Looks::default();
    loop {
        looks.once(member, doing).await;
        while !looks.told && begun.elapsed() < PATIENCE {
            sleep(COMES).await;
            looks.tell(member, doing.go_on()).await;
        }
        sleep(LOOK).await;
    }
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

/// As long as nothing else has joined the machine to something.
fn membership() -> Result<Option<Membership>> {
    let now = Membership::read()?;
    let is_of = now.as_ref().map(files::are_of).transpose()?;
    Ok(now.filter(|_| is_of == Some(true)))
}

fn is_same(member: &Membership, now: &Membership) -> bool {
    is_same_node(member, now) && member.tunnel == now.tunnel
}

/// A machine whose Node is marked as left is none.
fn is_same_node(member: &Membership, now: &Membership) -> bool {
    member.server == now.server && member.node == now.node && !now.is_marked()
}

/// What one look knows of those before it.
#[derive(Default)]
struct Looks {
    observer: gpu::Observer,
    unfinished: Unfinished,
    renewal: Renewal,
    /// False as long as the Node has not come.
    told: bool,
}

impl Looks {
    /// Does what the tenant asks, and tells it what is here.
    async fn once(&mut self, member: &Membership, doing: &mut Doing) {
        let asked = async || follow::published(&member.server, &authorities()?).await;
        // On the heap: it is as large as what it asks.
        let (authorities, done) = match Box::pin(asked()).await {
            Ok(now) => (Ok(now.authorities), doing.follow(now.asked)),
            Err(error) => (Err(error), doing.go_on()),
        };
        match Box::pin(follow::once(member, authorities, &mut self.renewal)).await {
            Ok(true) => {
                tracing::info!("the kubelet has the authorities of now, and was restarted");
            }
            Ok(false) => {}
            Err(error) => warn(&error, "the tenant's authorities are not followed"),
        }
        self.tell(member, done).await;
    }

    async fn tell(&mut self, member: &Membership, done: Done) {
        let leaving = Membership::read().ok().flatten();
        let leaving = leaving.and_then(|member| member.leaving);
        let is_old = self.unfinished.is_old(leaving);
        let authority = renew::authority();
        let own = Own {
            done,
            authority: authority.as_ref().map(|(pin, has)| (pin.as_str(), *has)),
        };
        let told = report::once(member, &mut self.observer, own).await;
        self.told = !matches!(told, Ok(None));
        match told {
            Ok(Some(node)) if is_old => {
                if let Err(error) = self.unfinished.forget_if_back(&node) {
                    warn(&error, "leave is not forgotten");
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => tracing::info!(node = member.node, "the Node has not come yet"),
            Err(error) => warn(&error, "not told what the machine has"),
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
