//! Whether every API server serves the encryption configuration that stands, by its own word.
//!
//! From 1.34 on each names the hash of what it serves. Before, it only counts the changed files that it took: whatever is
//! taken after a count that was read while this configuration stood already is this configuration. To have something to
//! take, it is written once more under another revision ([`Servers::Unproven`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::join_all;
use stoker_control_plane::{EncryptionKeys, Servers};

use super::Work;
use super::metrics::{Said, said};
use crate::tenant::state::lock;
use crate::tenant::writes::client;

/// What API servers said before, by pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// Those that serve what is served since this revision.
    loaded: BTreeMap<String, u64>,
    /// What they counted when it stood already.
    counted: BTreeMap<String, (u64, String, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Serves,
    Behind,
    Unproven,
}

impl Evidence {
    fn keep_only(&mut self, pods: &BTreeMap<String, Option<IpAddr>>) {
        self.loaded.retain(|name, _| pods.contains_key(name));
        self.counted.retain(|name, _| pods.contains_key(name));
    }

    fn is_loaded(&self, pod: &str, keys: &EncryptionKeys) -> bool {
        self.loaded.get(pod) == Some(&keys.served_since())
    }

    /// Takes what the API server of `pod` said.
    fn hear(&mut self, pod: &str, said: Option<Said>, keys: &EncryptionKeys) -> Seen {
        let since = keys.served_since();
        let seen = match said {
            Some(Said::Hash(hash)) if hash == keys.hash() => Seen::Serves,
            Some(Said::Hash(_)) | None => Seen::Behind,
            Some(Said::Reloads(started, reloads)) => match self.counted.get(pod) {
                Some((known, start, count)) if *known == since && *start == started => {
                    if reloads > *count {
                        Seen::Serves
                    } else {
                        Seen::Behind
                    }
                }
                _ => {
                    let counted = (since, started, reloads);
                    self.counted.insert(pod.to_owned(), counted);
                    Seen::Unproven
                }
            },
        };
        if seen == Seen::Serves {
            self.loaded.insert(pod.to_owned(), since);
        }
        seen
    }
}

/// Asks those that are not known to serve it; names one that does not.
pub(super) async fn look(work: &Work<'_>) -> (Servers, Option<String>) {
    let state = work.state;
    let pods = lock(&state.pods).running();
    if pods.is_empty() {
        return (Servers::None, None);
    }
    let unknown: Vec<_> = {
        let evidence = &mut lock(&state.encryption).evidence;
        evidence.keep_only(&pods);
        let unknown = pods.iter();
        let unknown = unknown.filter(|(name, _)| !evidence.is_loaded(name, work.keys));
        unknown.map(|(name, ip)| (name.clone(), *ip)).collect()
    };
    let answers = unknown.iter().map(async |(name, ip)| {
        let said = match ip {
            Some(ip) => ask(*ip, work).await,
            None => None,
        };
        (name, said)
    });
    let answers = join_all(answers).await;
    let evidence = &mut lock(&state.encryption).evidence;
    let mut all = Servers::Current;
    let mut pod = None;
    for (name, said) in answers {
        match evidence.hear(name, said, work.keys) {
            Seen::Serves => continue,
            Seen::Behind if all == Servers::Unproven => {}
            Seen::Behind => all = Servers::Behind,
            Seen::Unproven => all = Servers::Unproven,
        }
        pod.get_or_insert_with(|| name.clone());
    }
    (all, pod)
}

async fn ask(address: IpAddr, work: &Work<'_>) -> Option<Said> {
    let client = client(address, work.tenant, None, work.state, work.ctx).await?;
    let request = http::Request::get("/metrics").body(Vec::new()).ok()?;
    let text = client.request_text(request).await.ok()?;
    said(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoker_api::v1alpha1::Encryption;
    use stoker_control_plane::Advance;

    fn other() -> Encryption {
        serde_json::from_value(serde_json::json!({ "keyGeneration": 1 })).unwrap()
    }

    fn reloads(started: &str, count: u64) -> Said {
        Said::Reloads(started.to_owned(), count)
    }

    #[test]
    fn an_api_server_is_believed_only_what_it_says_of_what_stands() {
        let born = EncryptionKeys::generate(&Encryption::default()).unwrap();
        let keys = born.after(Advance::Begin, &other()).unwrap().unwrap();
        let mut evidence = Evidence::default();
        let old = Some(Said::Hash(born.hash()));
        assert_eq!(evidence.hear("a", old, &keys), Seen::Behind);
        assert_eq!(evidence.hear("a", None, &keys), Seen::Behind);
        let new = Some(Said::Hash(keys.hash()));
        assert_eq!(evidence.hear("a", new, &keys), Seen::Serves);
        assert!(evidence.is_loaded("a", &keys));
        let next = keys.after(Advance::Write, &other()).unwrap().unwrap();
        assert!(!evidence.is_loaded("a", &next));
    }

    #[test]
    fn a_count_proves_something_only_against_one_that_was_read_before() {
        let born = EncryptionKeys::generate(&Encryption::default()).unwrap();
        let keys = born.after(Advance::Begin, &other()).unwrap().unwrap();
        let mut evidence = Evidence::default();
        assert_eq!(
            evidence.hear("a", Some(reloads("1", 4)), &keys),
            Seen::Unproven
        );
        let touched = keys.after(Advance::Touch, &other()).unwrap().unwrap();
        assert_eq!(
            evidence.hear("a", Some(reloads("1", 4)), &touched),
            Seen::Behind
        );
        // Another process in the same pod.
        assert_eq!(
            evidence.hear("a", Some(reloads("2", 5)), &touched),
            Seen::Unproven
        );
        assert_eq!(
            evidence.hear("a", Some(reloads("2", 6)), &touched),
            Seen::Serves
        );
        let next = keys.after(Advance::Write, &other()).unwrap().unwrap();
        assert_eq!(
            evidence.hear("a", Some(reloads("2", 7)), &next),
            Seen::Unproven
        );
    }
}
