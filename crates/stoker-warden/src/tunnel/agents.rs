//! Which agents there are, and which of them is asked for a stream.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use stoker_tunnel::identity::{NodeName, Served};
use stoker_tunnel::pulse::Pulse;
use stoker_tunnel::wire::REASON;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::target::{Host, Target};

/// How long an agent may take to say whether it reaches a target. It gives up sooner itself.
const ANSWER: Duration = Duration::from_secs(15);
/// An agent that has not answered for so long is asked by a ping whether it is still there.
const DOUBTFUL: Duration = Duration::from_secs(2);
/// Between two looks at that ping.
const LOOK: Duration = Duration::from_millis(250);
/// Agents asked for one stream: each may take its time.
const TRIES: usize = 3;
/// Connections of one node at a time: one, another that replaces it, and what still drains.
const LINKS_PER_NODE: usize = 8;
/// Connections of one node that have not said yet what they are for.
const GREETINGS_PER_NODE: usize = 8;
/// An agent that went away or is about to, or has not come yet to a process that has just begun, may be back within this time.
const HOPE: Duration = Duration::from_secs(10);

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

/// A connection to an agent.
#[derive(Clone, Debug)]
pub(super) struct Link {
    id: u64,
    node: NodeName,
    served: Option<Arc<Served>>,
    pulse: Arc<Pulse>,
    requests: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    /// When it was asked last, counted in streams.
    asked: Arc<AtomicU64>,
    /// Whether it takes no new streams.
    leaving: bool,
    /// Told when it shall be asked by a ping at once.
    doubted: Arc<Notify>,
    /// Whether another connection of the node takes its place.
    superseded: bool,
    evicted: Arc<Notify>,
}

/// A stream to a target, and its place in the count of its agent.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) send: SendStream<Bytes>,
    pub(super) receive: RecvStream,
    pub(super) place: Place,
}

/// A stream that counts, until dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(streams.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Agents {
    links: Mutex<Links>,
    /// Told when one comes, goes, or takes no streams any more.
    changes: Notify,
}

#[derive(Debug)]
struct Links {
    last_id: u64,
    opened: u64,
    all: Vec<Link>,
    greeted: HashMap<NodeName, usize>,
    /// When the last one went away, while there is none.
    alone: Instant,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            last_id: 0,
            opened: 0,
            all: Vec::new(),
            greeted: HashMap::new(),
            alone: Instant::now(),
        }
    }
}

/// A connection of a node that has not said yet what it is for, until dropped.
#[derive(Debug)]
pub(super) struct Greeted<'a> {
    agents: &'a Agents,
    node: &'a NodeName,
}

impl Drop for Greeted<'_> {
    fn drop(&mut self) {
        let mut links = self.agents.links();
        if let Some(count) = links.greeted.get_mut(self.node) {
            *count -= 1;
            if *count == 0 {
                links.greeted.remove(self.node);
            }
        }
    }
}

/// An agent that is there until this is dropped.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    agents: &'a Agents,
    id: u64,
    /// Told when others of the same node took its place.
    pub(super) evicted: Arc<Notify>,
    /// Told when it shall be asked by a ping at once.
    pub(super) doubted: Arc<Notify>,
}

impl Registered<'_> {
    /// It gets no new streams; what is open goes on.
    pub(super) fn leave(&self) {
        self.agents.leave(self.id);
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut links = self.agents.links();
        let gone = links.all.iter().position(|link| link.id == self.id);
        if let Some(gone) = gone.map(|index| links.all.remove(index)) {
            links.prefer_newest(&gone.node);
            links.alone = Instant::now();
            self.agents.changes.notify_waiters();
        }
    }
}

impl Agents {
    /// `None` when the node has too many of these already.
    pub(super) fn greet<'a>(&'a self, node: &'a NodeName) -> Option<Greeted<'a>> {
        let mut links = self.links();
        let count = links.greeted.entry(node.clone()).or_default();
        if *count >= GREETINGS_PER_NODE {
            return None;
        }
        *count += 1;
        Some(Greeted { agents: self, node })
    }

    /// Streams that are open, over all agents.
    pub(super) fn streams(&self) -> usize {
        let streams = |link: &Link| link.streams.load(Ordering::Relaxed);
        self.links().all.iter().map(streams).sum()
    }

    pub(super) fn add(
        &self,
        node: &NodeName,
        served: Option<Served>,
        pulse: Arc<Pulse>,
        requests: SendRequest<Bytes>,
    ) -> Registered<'_> {
        let mut links = self.links();
        links.last_id += 1;
        let id = links.last_id;
        let mut same = links.all.iter().filter(|link| link.node == *node);
        // The oldest comes first.
        let oldest = same.next();
        if let Some(oldest) = oldest
            && same.count() + 1 >= LINKS_PER_NODE
        {
            oldest.evicted.notify_one();
        }
        let evicted = Arc::new(Notify::new());
        let doubted = Arc::new(Notify::new());
        links.all.push(Link {
            id,
            node: node.clone(),
            served: served.map(Arc::new),
            pulse,
            requests,
            streams: Arc::default(),
            asked: Arc::default(),
            leaving: false,
            doubted: doubted.clone(),
            superseded: false,
            evicted: evicted.clone(),
        });
        links.prefer_newest(node);
        self.changes.notify_waiters();
        Registered {
            agents: self,
            id,
            evicted,
            doubted,
        }
    }

    /// The agent gets no new streams: another of its node does, if there is one.
    fn leave(&self, id: u64) {
        let mut links = self.links();
        let link = links.all.iter_mut().find(|link| link.id == id);
        if let Some(link) = link.filter(|link| !link.leaving) {
            link.leaving = true;
            let node = link.node.clone();
            links.prefer_newest(&node);
            self.changes.notify_waiters();
        }
    }

    /// A stream to the target, through the agent that shall have it; through another when that one has
    /// just gone or has no way there.
    pub(super) async fn open(&self, target: &Target) -> Result<Opened, Refusal> {
        let mut tried = Vec::new();
        let mut refusal = Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "no tunnel agent of this cluster is connected".to_owned(),
        };
        while tried.len() < TRIES {
            let link = match self.link(target, &tried).await {
                Ok(link) => link,
                Err(Some(node)) => return Err(gone(&node)),
                Err(None) => break,
            };
            tried.push(link.id);
            let place = Place::take(&link.streams);
            let Ok(requests) = link.requests.clone().ready().await else {
                self.leave(link.id);
                refusal = gone(&link.node);
                continue;
            };
            match link.open(requests, target, place).await {
                Err(other) if other.status == StatusCode::SERVICE_UNAVAILABLE => refusal = other,
                answer => return answer,
            }
        }
        Err(refusal)
    }

    /// The agent that shall have a stream. While those that may have it take none, others that may come soon are waited for.
    ///
    /// # Errors
    /// There is none; with the node that alone may have it and takes none.
    async fn link(&self, target: &Target, tried: &[u64]) -> Result<Link, Option<NodeName>> {
        let begun = Instant::now();
        loop {
            let mut changed = pin!(self.changes.notified());
            changed.as_mut().enable();
            let (since, node) = match self.choose(target, tried) {
                Chosen::Link(link) => return Ok(link),
                Chosen::Nobody => return Err(None),
                Chosen::NotYet(since, node) => (since.unwrap_or(begun), node),
            };
            if timeout_at(since + HOPE, changed).await.is_err() {
                return Err(node);
            }
        }
    }

    fn choose(&self, target: &Target, tried: &[u64]) -> Chosen {
        let mut links = self.links();
        let candidates: Vec<Candidate<'_>> = links
            .all
            .iter()
            .filter(|link| !link.superseded)
            .map(|link| link.candidate(target, tried))
            .collect();
        let id = match choose(&candidates) {
            Choice::Agent(id) => id,
            Choice::Nobody => return Chosen::Nobody,
            // An agent that lets its last streams run on is about to be replaced.
            Choice::NotYet(node) => {
                let alone = links.all.is_empty().then_some(links.alone);
                return Chosen::NotYet(alone, node.cloned());
            }
        };
        links.opened += 1;
        let Some(link) = links.all.iter().find(|link| link.id == id) else {
            return Chosen::Nobody;
        };
        link.asked.store(links.opened, Ordering::Relaxed);
        Chosen::Link(link.clone())
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a choice.
enum Chosen {
    Link(Link),
    /// Those that may have it were all asked.
    Nobody,
    /// Nobody takes it: since when, if there is nobody at all, and the node that alone may have it, if there is one.
    NotYet(Option<Instant>, Option<NodeName>),
}

impl Links {
    /// Of the connections of a node the newest that takes streams counts; without any such the newest.
    fn prefer_newest(&mut self, node: &NodeName) {
        let mut same: Vec<_> = self
            .all
            .iter_mut()
            .filter(|link| link.node == *node)
            .collect();
        same.sort_by_key(|link| (link.leaving, Reverse(link.id)));
        for (index, link) in same.into_iter().enumerate() {
            link.superseded = index > 0;
        }
    }
}

impl Link {
    fn candidate(&self, target: &Target, tried: &[u64]) -> Candidate<'_> {
        let serves = |served: &&Arc<Served>| match &target.host {
            Host::Address(address) => served.addresses.contains(address),
            Host::Name(name) => served.names.contains(name),
        };
        Candidate {
            id: self.id,
            node: &self.node,
            attested: self
                .served
                .as_ref()
                .filter(serves)
                .map(|served| served.since),
            leaving: self.leaving,
            tried: tried.contains(&self.id),
            in_doubt: self.pulse.in_doubt(),
            round_trip: self.pulse.round_trip(),
            streams: self.streams.load(Ordering::Relaxed),
            asked: self.asked.load(Ordering::Relaxed),
        }
    }

    /// Ends when it answers nothing at all: an agent that dials in vain says so itself, after a while.
    async fn silence(&self) {
        sleep(DOUBTFUL).await;
        self.doubted.notify_one();
        loop {
            sleep(LOOK).await;
            if self.pulse.in_doubt() {
                return;
            }
        }
    }

    async fn open(
        self,
        mut requests: SendRequest<Bytes>,
        target: &Target,
        place: Place,
    ) -> Result<Opened, Refusal> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = target.authority.clone().into();
        let Ok((response, send)) = requests.send_request(request, false) else {
            return Err(gone(&self.node));
        };
        let answer = async {
            tokio::select! {
                response = response => response.ok(),
                () = self.silence() => None,
            }
        };
        let response = match timeout(ANSWER, answer).await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(gone(&self.node)),
            Err(_) => {
                return Err(Refusal {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    reason: format!("the tunnel agent of node {} does not answer", self.node),
                });
            }
        };
        if response.status() == StatusCode::OK {
            return Ok(Opened {
                send,
                receive: response.into_body(),
                place,
            });
        }
        let reason = response.headers().get(REASON);
        let reason = reason
            .and_then(|reason| reason.to_str().ok())
            .unwrap_or("no reason given");
        Err(Refusal {
            status: response.status(),
            reason: format!("node {}: {reason}", self.node),
        })
    }
}

/// An agent as far as the choice goes.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    id: u64,
    node: &'a NodeName,
    /// Since when its node is known to have the target's address.
    attested: Option<i64>,
    leaving: bool,
    tried: bool,
    in_doubt: bool,
    round_trip: Duration,
    streams: usize,
    asked: u64,
}

/// Who shall have a stream.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    Agent(u64),
    /// Those that may have it were all asked.
    Nobody,
    /// None of those that may have it takes streams; with the node that alone may have it.
    NotYet(Option<&'a NodeName>),
}

/// The node that has the address, by the latest word of it, and no other while it is there, even if it takes no streams; else one that
/// answers, is about as near as the nearest and has least to do; of those, each in turn.
fn choose<'a>(candidates: &[Candidate<'a>]) -> Choice<'a> {
    let owner = candidates
        .iter()
        .filter_map(|one| one.attested.map(|since| (since, one.node)))
        .max();
    let owner = owner.map(|(_, node)| node);
    let mut able: Vec<_> = candidates
        .iter()
        .filter(|one| !one.leaving && owner.is_none_or(|node| node == one.node))
        .collect();
    if able.is_empty() {
        return Choice::NotYet(owner);
    }
    able.retain(|one| !one.tried);
    let doubtful = able.iter().all(|one| one.in_doubt);
    let answering = || able.iter().filter(|one| doubtful || !one.in_doubt);
    let nearest = answering().map(|one| one.round_trip).min();
    let near = nearest.unwrap_or_default() * 2 + Duration::from_millis(1);
    answering()
        .filter(|one| one.round_trip <= near)
        .min_by_key(|one| (one.streams, one.asked))
        .map_or(Choice::Nobody, |one| Choice::Agent(one.id))
}

fn gone(node: &NodeName) -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason: format!("the tunnel agent of node {node} went away"),
    }
}

#[cfg(test)]
mod tests;
