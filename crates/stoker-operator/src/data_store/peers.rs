//! Where control-plane pods reach a pool, as their `NetworkPolicy` must say it: remembered from lookup to lookup.

pub mod lookup;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use stoker_control_plane::StoragePeer;

/// What an endpoint has not answered for this long is somebody else's by now.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);
/// Peers remembered of one endpoint: each makes the policy of every tenant longer.
const MOST: usize = 32;

/// What looking one endpoint up came to: its peers, or why there are none.
pub type Answer = Result<Vec<StoragePeer>, String>;

/// The peers of a pool. A lookup that fails, or answers another part of a set each time, must not cut running tenants
/// off: what was seen stays for an hour, and does not age while its endpoint cannot be looked up.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    seen: Vec<Seen>,
    failures: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Seen {
    endpoint: String,
    peer: StoragePeer,
    last: Timestamp,
}

impl Peers {
    /// What is known after every endpoint of the pool was looked up. Peers of endpoints that are no longer asked for
    /// age too: pods that know only these run until they are replaced.
    #[must_use]
    pub fn after(mut self, answers: BTreeMap<String, Answer>, now: Timestamp) -> Self {
        self.failures.clear();
        for (endpoint, answer) in answers {
            match answer {
                Ok(peers) => self.saw(&endpoint, peers, now),
                Err(why) => {
                    for seen in self.of(&endpoint) {
                        seen.last = now;
                    }
                    self.failures.insert(endpoint, why);
                }
            }
        }
        self.seen
            .retain(|seen| now.duration_since(seen.last) <= FORGOTTEN);
        self.seen.sort_by(|one, other| {
            let one = (&one.endpoint, Reverse(one.last), &one.peer);
            one.cmp(&(&other.endpoint, Reverse(other.last), &other.peer))
        });
        let mut kept: BTreeMap<String, usize> = BTreeMap::new();
        self.seen.retain(|seen| {
            let count = kept.entry(seen.endpoint.clone()).or_default();
            *count += 1;
            *count <= MOST
        });
        self
    }

    fn saw(&mut self, endpoint: &str, peers: Vec<StoragePeer>, now: Timestamp) {
        for peer in peers {
            if let Some(seen) = self.of(endpoint).find(|seen| seen.peer == peer) {
                seen.last = now;
                continue;
            }
            self.seen.push(Seen {
                endpoint: endpoint.to_owned(),
                peer,
                last: now,
            });
        }
    }

    fn of(&mut self, endpoint: &str) -> impl Iterator<Item = &mut Seen> {
        self.seen
            .iter_mut()
            .filter(move |seen| seen.endpoint == endpoint)
    }

    /// All of them, sorted, each once.
    #[must_use]
    pub fn list(&self) -> Vec<StoragePeer> {
        let mut list: Vec<_> = self.seen.iter().map(|seen| seen.peer.clone()).collect();
        list.sort();
        list.dedup();
        list
    }

    /// Whether the last lookup of some endpoint failed: it is to be looked up again soon.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Why some endpoints are not known at all; `None` once each was found. Until then a policy made from
    /// [`Peers::list`] may close the way that running pods use.
    #[must_use]
    pub fn unresolved(&self) -> Option<String> {
        let unknown = |endpoint: &String| !self.seen.iter().any(|seen| seen.endpoint == *endpoint);
        let unknown = self.failures.iter().filter(|(name, _)| unknown(name));
        let said: Vec<_> = unknown
            .map(|(endpoint, why)| format!("{endpoint} cannot be resolved ({why})"))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> StoragePeer {
        StoragePeer::Address {
            ip: Ipv4Addr::new(192, 0, 2, last).into(),
            port: 2379,
        }
    }

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn answers<const N: usize>(of: [(&str, Result<&[u8], &str>); N]) -> BTreeMap<String, Answer> {
        let peers = |lasts: &[u8]| lasts.iter().copied().map(peer).collect();
        of.into_iter()
            .map(|(name, answer)| (name.to_owned(), answer.map(peers).map_err(str::to_owned)))
            .collect()
    }

    #[test]
    fn an_endpoint_is_unresolved_until_it_was_found_once() {
        let first = answers([("a:1", Ok(&[1])), ("b:1", Err("no such host"))]);
        let peers = Peers::default().after(first, minute(0));
        assert_eq!(
            peers.unresolved().as_deref(),
            Some("b:1 cannot be resolved (no such host)")
        );
        let found = answers([("a:1", Ok(&[1])), ("b:1", Ok(&[2]))]);
        let peers = peers.after(found, minute(1));
        assert_eq!((peers.unresolved(), peers.is_failing()), (None, false));
        let lost = answers([("a:1", Ok(&[1])), ("b:1", Err("no such host"))]);
        let peers = peers.after(lost, minute(2));
        assert_eq!((peers.unresolved(), peers.is_failing()), (None, true));
        assert_eq!(peers.list(), [peer(1), peer(2)]);
    }

    #[test]
    fn an_address_goes_an_hour_after_it_was_last_answered() {
        let peers = Peers::default().after(answers([("a:1", Ok(&[1]))]), minute(0));
        let peers = peers.after(answers([("a:1", Ok(&[2]))]), minute(60));
        assert_eq!(peers.list(), [peer(1), peer(2)]);
        let peers = peers.after(answers([("a:1", Ok(&[2]))]), minute(61));
        assert_eq!(peers.list(), [peer(2)]);
    }

    #[test]
    fn nothing_ages_while_its_endpoint_cannot_be_looked_up() {
        let mut peers = Peers::default().after(answers([("a:1", Ok(&[1]))]), minute(0));
        for hour in 1..5 {
            peers = peers.after(answers([("a:1", Err("timed out"))]), minute(59 * hour));
        }
        assert_eq!(peers.list(), [peer(1)]);
    }

    #[test]
    fn peers_of_an_endpoint_that_is_no_longer_asked_for_stay_for_an_hour() {
        let peers = Peers::default().after(answers([("a:1", Ok(&[1]))]), minute(0));
        let peers = peers.after(answers([("b:1", Ok(&[2]))]), minute(5));
        assert_eq!(peers.list(), [peer(1), peer(2)]);
        assert_eq!(peers.unresolved(), None);
        let peers = peers.after(answers([("b:1", Ok(&[2]))]), minute(61));
        assert_eq!(peers.list(), [peer(2)]);
    }

    #[test]
    fn of_a_name_with_ever_other_addresses_the_latest_are_kept() {
        let mut peers = Peers::default();
        for round in 0..50 {
            let found = answers([("a:1", Ok(&[round])), ("b:1", Ok(&[200]))]);
            peers = peers.after(found, minute(i64::from(round)));
        }
        let list = peers.list();
        assert_eq!(list.len(), MOST + 1);
        assert!(list.contains(&peer(49)) && list.contains(&peer(200)) && !list.contains(&peer(0)));
    }
}
