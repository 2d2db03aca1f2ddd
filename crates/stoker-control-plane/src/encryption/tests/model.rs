//! A model of API servers, an operator that may die between any two writes, and people who write and change their minds.

use std::collections::{BTreeMap, BTreeSet};

use stoker_api::v1alpha1::Encryption;

use super::super::scheme::Phase;
use super::super::*;
use super::wishes;

/// A source of choices that is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

const RESOURCES: [(&str, &str); 3] = [
    ("secrets", "secrets/"),
    ("configmaps", "configmaps/"),
    ("leases.coordination.k8s.io", "leases/"),
];

/// With what a value is encrypted: what it begins with; empty for `identity`.
type Mark = String;

/// What is served: per resource, marks of the providers in order.
fn served(keys: &EncryptionKeys) -> BTreeMap<String, Vec<Mark>> {
    let state = keys.state.as_ref().unwrap();
    let mut all = BTreeMap::new();
    let mut plugins = Vec::new();
    for rule in state.rules() {
        let mark = |provider: Option<&Provider>| provider.map_or(String::new(), Provider::mark);
        let marks: Vec<Mark> = rule.providers.iter().copied().map(mark).collect();
        plugins.extend(marks.iter().filter(|mark| mark.contains(":kms:")).cloned());
        for resource in rule.resources {
            let twice = all.insert(resource.to_owned(), marks.clone());
            assert!(twice.is_none(), "an API server refuses this");
        }
    }
    let different: BTreeSet<_> = plugins.iter().collect();
    assert_eq!(different.len(), plugins.len(), "a plugin in two rules");
    all
}

#[derive(Default)]
struct World {
    secret: Option<EncryptionKeys>,
    /// What the Secret was before: what a new API server may start with.
    before: Option<EncryptionKeys>,
    copy: Option<EncryptionKeys>,
    servers: Vec<EncryptionKeys>,
    stored: BTreeMap<String, (String, Mark)>,
    /// In the operator's memory: until which revision everything was rewritten, and what was found.
    rewritten: Option<u64>,
    found: Option<(u64, Stored)>,
    goes_back: usize,
}

impl World {
    fn secret(&self) -> &EncryptionKeys {
        self.secret.as_ref().unwrap()
    }

    fn start(&mut self, stale: bool) {
        let config = if stale { &self.before } else { &self.secret };
        let config = config.clone().unwrap();
        self.servers.push(config);
    }

    fn store(&mut self, server: usize, resource: &str, key: String) {
        let rules = served(&self.servers[server]);
        let mark = rules
            .get(resource)
            .map_or(String::new(), |marks| marks[0].clone());
        self.stored.insert(key, (resource.to_owned(), mark));
    }

    fn write(&mut self, dice: &mut Dice) {
        if self.servers.is_empty() {
            return;
        }
        let (resource, directory) = RESOURCES[dice.below(RESOURCES.len())];
        let key = format!("{directory}{}", dice.below(6));
        let server = dice.below(self.servers.len());
        self.store(server, resource, key);
    }

    /// Whether a server can read a value.
    fn reads(server: &EncryptionKeys, resource: &str, mark: &Mark) -> bool {
        let rules = served(server);
        match rules.get(resource) {
            None => mark.is_empty(),
            Some(marks) => marks.contains(mark),
        }
    }

    fn check(&self, all_read: bool) {
        let known = |keys: &EncryptionKeys, mark: &Mark| {
            let state = keys.state.as_ref().unwrap();
            state.providers().any(|provider| provider.mark() == *mark)
        };
        for (key, (resource, mark)) in &self.stored {
            if !mark.is_empty() {
                assert!(known(self.secret(), mark), "{key}: the key {mark} is lost");
                let copy = self.copy.as_ref().unwrap();
                assert!(
                    known(copy, mark),
                    "{key}: the copy does not have the key {mark}"
                );
            }
            for server in self.servers.iter().filter(|_| all_read) {
                assert!(Self::reads(server, resource, mark), "{key} {mark:?}");
            }
        }
    }

    fn observed(&self) -> Observed {
        let secret = self.secret();
        let servers = if self.servers.is_empty() {
            Servers::None
        } else if self.servers.iter().all(|server| server == secret) {
            Servers::Current
        } else {
            Servers::Behind
        };
        let found = self
            .found
            .filter(|(revision, _)| *revision == secret.revision());
        let stored = found.map_or(Stored::Unknown, |(_, stored)| stored);
        Observed { servers, stored }
    }

    /// One step of the operator, which may die in the middle of it.
    fn operate(&mut self, wanted: &Encryption, dice: &mut Dice) -> Step {
        if self.copy != self.secret {
            // A pass begins by bringing the copy up to what it follows from.
            assert!(
                self.copy
                    .as_ref()
                    .is_none_or(|copy| self.secret().follows(copy))
            );
            self.copy.clone_from(&self.secret);
            return Step::AwaitLoading;
        }
        let step = self.secret().next(wanted, self.observed());
        match step {
            Step::Advance(advance) => {
                let after = self.secret().after(advance, wanted).unwrap().unwrap();
                self.goes_back += usize::from(advance == Advance::GoBack);
                self.before = self.secret.replace(after);
                if dice.once_in(4) {
                    self.forget();
                } else {
                    self.copy.clone_from(&self.secret);
                }
            }
            Step::Rewrite => self.rewrite(dice),
            Step::Check => self.look(),
            Step::Rest | Step::Refuse(_) | Step::AwaitServers | Step::AwaitLoading => {}
        }
        step
    }

    fn rewrite(&mut self, dice: &mut Dice) {
        let revision = self.secret().revision();
        if self.rewritten == Some(revision) {
            self.look();
            return;
        }
        let resources = self.secret().rewritten();
        let all = self.stored.clone();
        for (key, (resource, _)) in all {
            if dice.once_in(20) {
                return self.forget();
            }
            if resources.contains(&resource) {
                let server = dice.below(self.servers.len());
                self.store(server, &resource, key);
            }
        }
        self.rewritten = Some(revision);
    }

    fn look(&mut self) {
        let leftover = self.secret().leftover().unwrap();
        let old = self.stored.iter();
        let old = old.filter(|(key, (_, mark))| leftover.is(key, mark.as_bytes()));
        let found = if old.count() == 0 {
            Stored::New
        } else {
            self.rewritten = None;
            Stored::Old
        };
        self.found = Some((self.secret().revision(), found));
        if found == Stored::Old
            && self
                .secret()
                .state
                .as_ref()
                .unwrap()
                .change
                .as_ref()
                .unwrap()
                .phase
                == Phase::Writing
        {
            self.found = None;
        }
    }

    fn forget(&mut self) {
        (self.rewritten, self.found) = (None, None);
    }
}

/// Anything happens for a while; then nothing more, and it must come to rest.
fn run(seed: u64, stale: bool) -> usize {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let wishes = wishes();
    let mut wish = wishes[dice.below(wishes.len())].clone();
    let born = EncryptionKeys::generate(&wish).unwrap();
    let mut world = World {
        secret: Some(born.clone()),
        before: Some(born.clone()),
        copy: Some(born),
        ..World::default()
    };
    world.start(false);
    for _ in 0..400 {
        match dice.below(12) {
            0..4 => world.write(&mut dice),
            4..6 if !world.servers.is_empty() => {
                let server = dice.below(world.servers.len());
                world.servers[server] = world.secret().clone();
            }
            6 if world.servers.len() < 3 => {
                let stale = stale && dice.once_in(2);
                world.start(stale);
            }
            7 if !world.servers.is_empty() => {
                let server = dice.below(world.servers.len());
                world.servers.remove(server);
            }
            8 if dice.once_in(6) => wish = wishes[dice.below(wishes.len())].clone(),
            9 if dice.once_in(3) => world.forget(),
            _ => {
                world.operate(&wish, &mut dice);
            }
        }
        world.check(!stale);
    }
    world.start(false);
    for turn in 0.. {
        let secret = world.secret().clone();
        world.servers.fill(secret);
        let step = world.operate(&wish, &mut dice);
        world.check(!stale);
        match step {
            Step::Rest => break,
            Step::Refuse(Refusal::ResourcesOfPlugin) => return world.goes_back,
            _ => assert!(turn < 200, "it never comes to rest: {step:?}"),
        }
    }
    let kept = world.secret().state.clone().unwrap();
    assert!(kept.change.is_none() && kept.scheme.serves(&wish));
    for (resource, mark) in world.stored.values() {
        let encrypted = wish.resources.contains(resource);
        let expected = if encrypted {
            kept.scheme.provider.mark()
        } else {
            String::new()
        };
        assert_eq!(*mark, expected, "{resource}");
    }
    world.goes_back
}

#[test]
fn every_value_can_be_read_by_every_api_server_at_any_time_and_everything_comes_to_rest() {
    for seed in 0..300 {
        run(seed, false);
    }
}

#[test]
fn no_key_is_lost_that_an_api_server_wrote_with_when_it_started_with_what_was_before() {
    let back: usize = (0..300).map(|seed| run(seed, true)).sum();
    assert!(back > 0, "the case did not come up");
}
