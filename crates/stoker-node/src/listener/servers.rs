//! Where gateways, or API servers, are, and one of them that answers.
//!
//! Names are looked up when they are needed, at most once a second and beside the connection that needs them; while nobody
//! answers for one, what it was goes on to count.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::dial::HASTE;
use crate::tunnel::Server;

/// How long what was looked up counts.
const FRESH: Duration = Duration::from_secs(5);
/// How long it counts at least, however many clients look for another.
const STALE: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(2);
/// How long one address may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one that does not answer is asked last.
const REST: Duration = Duration::from_secs(5);
/// When all have failed.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a client waits while none answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of them.
#[derive(Debug)]
pub(super) struct Servers {
    names: Vec<Server>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Vec<Known>,
    /// What each name was when last it was anything.
    found: Vec<Vec<SocketAddr>>,
    /// Begin of the last look.
    looked: Option<Instant>,
    /// Whether none of those known answered.
    doubted: bool,
    /// Where the search begins, so that equals take turns.
    turn: usize,
}

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    open: u32,
    rests_until: Option<Instant>,
}

/// One that answers; its connection is counted until dropped.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    _counted: Counted,
}

#[derive(Debug)]
struct Counted {
    servers: Arc<Servers>,
    address: SocketAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.servers.change(self.address, |known| {
            known.open = known.open.saturating_sub(1);
        });
    }
}

impl Servers {
    pub(super) fn new(names: Vec<Server>) -> Self {
        // Nodes do not all begin with the same one.
        let mut byte = [0];
        let _ = getrandom::fill(&mut byte);
        let state = State {
            found: vec![Vec::new(); names.len()],
            turn: byte[0].into(),
            ..State::default()
        };
        Self {
            names,
            state: Mutex::new(state),
        }
    }

    /// Reaches the one with the fewest connections of those that answer.
    ///
    /// # Errors
    /// None answered for a while.
    pub(super) async fn reach(self: &Arc<Self>) -> io::Result<Reached> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let looking = self.look_if_due();
            if let Some(looking) = looking
                && self.state().known.is_empty()
            {
                let _ = looking.await;
            }
            if let Some(reached) = self.round().await {
                return Ok(reached);
            }
            // They may be elsewhere now.
            self.state().doubted = true;
            if Instant::now() + PAUSE >= deadline {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Dials one after the other, and the next beside one that takes its time.
    async fn round(self: &Arc<Self>) -> Option<Reached> {
        let mut tried = Vec::new();
        let mut dialling = JoinSet::new();
        loop {
            let next = self.choose(&tried);
            if let Some(address) = next {
                tried.push(address);
                dialling.spawn(async move { (address, dial(address).await) });
            }
            tokio::select! {
                Some(Ok((address, dialled))) = dialling.join_next() => match dialled {
                    Ok(stream) => return Some(self.reached(address, stream)),
                    Err(error) => self.failed(address, &error),
                },
                () = sleep(HASTE), if next.is_some() => {
                    self.failed(tried[tried.len() - 1], &io::ErrorKind::TimedOut.into());
                }
                else => return None,
            }
        }
    }

    fn choose(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        let mut state = self.state();
        let now = Instant::now();
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn % state.known.len().max(1);
        let (before, from) = state.known.split_at(turn);
        let left = from.iter().chain(before);
        let left = left.filter(|known| !tried.contains(&known.address));
        let rests = |known: &Known| known.rests_until.is_some_and(|until| now < until);
        left.min_by_key(|known| (rests(known), known.open))
            .map(|known| known.address)
    }

    fn reached(self: &Arc<Self>, address: SocketAddr, stream: TcpStream) -> Reached {
        self.change(address, |known| {
            known.open += 1;
            known.rests_until = None;
        });
        let counted = Counted {
            servers: self.clone(),
            address,
        };
        Reached {
            stream,
            _counted: counted,
        }
    }

    fn failed(&self, address: SocketAddr, error: &io::Error) {
        debug!(%address, %error, "not reached");
        self.change(address, |known| {
            known.rests_until = Some(Instant::now() + REST);
        });
    }

    fn change(&self, address: SocketAddr, change: impl FnOnce(&mut Known)) {
        let mut state = self.state();
        let mut known = state.known.iter_mut();
        if let Some(known) = known.find(|known| known.address == address) {
            change(known);
        }
    }

    /// Looks the names up, if they were not lately.
    fn look_if_due(self: &Arc<Self>) -> Option<tokio::task::JoinHandle<()>> {
        let now = Instant::now();
        let mut state = self.state();
        let counts = if state.doubted { STALE } else { FRESH };
        if state.looked.is_some_and(|looked| now < looked + counts) {
            return None;
        }
        state.looked = Some(now);
        state.doubted = false;
        let servers = self.clone();
        Some(tokio::spawn(async move { servers.look().await }))
    }

    async fn look(&self) {
        for (n, server) in self.names.iter().enumerate() {
            match timeout(LOOK, server.addresses()).await {
                Ok(Ok(addresses)) => self.state().set(n, addresses),
                Ok(Err(error)) => {
                    warn!(?server, %error, "not found: what was found before goes on to count");
                }
                Err(_) => warn!(?server, "no answer: what was found before goes on to count"),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes those of a name these. What is known of those that stay is kept.
    fn set(&mut self, name: usize, addresses: Vec<SocketAddr>) {
        self.found[name] = addresses;
        let mut addresses = self.found.concat();
        addresses.sort_unstable();
        addresses.dedup();
        let mut former = std::mem::take(&mut self.known);
        let mut known = |address: SocketAddr| {
            let at = former.iter().position(|known| known.address == address);
            at.map_or_else(|| Known::new(address), |at| former.swap_remove(at))
        };
        self.known = addresses.into_iter().map(&mut known).collect();
    }
}

impl Known {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: 0,
            rests_until: None,
        }
    }
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(CONNECT, TcpStream::connect(address)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_nobody_knows_does_not_keep_from_the_others() {
        let answers = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = answers.local_addr().unwrap();
        let unknown = "stoker.invalid:1".parse().unwrap();
        let known = address.to_string().parse().unwrap();
        let servers = Arc::new(Servers::new(vec![unknown, known]));
        let reached = servers.reach().await.unwrap();
        assert_eq!(reached.stream.peer_addr().unwrap(), address);
    }

    #[test]
    fn what_a_name_was_stays_while_another_changes() {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut state = State {
            found: vec![Vec::new(); 2],
            ..State::default()
        };
        state.set(0, vec![address(1)]);
        state.set(1, vec![address(2)]);
        state.known[0].open = 3;
        state.set(1, vec![address(4)]);
        let known = |known: &Known| (known.address.port(), known.open);
        let known: Vec<_> = state.known.iter().map(known).collect();
        assert_eq!(known, [(1, 3), (4, 0)]);
    }
}
