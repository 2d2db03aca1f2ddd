//! Real certificates in files, and requests over real TLS.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stoker_pki::{Authority, LeafUsage};
use tempfile::TempDir;

use super::super::certificate::Pace;
use super::super::stand_in::{Shown, Signing, authority, leaf, requests_of, serve};
use super::*;

const NODE: &str = "w1";
const PACE: Pace = Pace {
    patience: Duration::from_millis(300),
    look: Duration::from_millis(10),
};

/// A machine that is a node, while its tenant's authority rotates.
struct Machine {
    _folder: TempDir,
    paths: [String; 6],
    old: Authority,
    new: Authority,
}

impl Machine {
    /// All that it has is of the old authority; the new one signs now.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["ca.crt", "client.pem", "server.pem", "config", "key", "due"];
        let machine = Self {
            paths: names.map(|name| folder.path().join(name).display().to_string()),
            _folder: folder,
            old: authority(),
            new: authority(),
        };
        let places = machine.places();
        let both = [machine.new.certificate(), machine.old.certificate()].concat();
        put(places.authorities, &both);
        put(places.client, &client_of(&machine.old, NODE));
        put(places.serving, &serving_of(&machine.old));
        put(places.config, "serverTLSBootstrap: true\n");
        machine
    }

    fn places(&self) -> Places<'_> {
        let [authorities, client, serving, config, key, due] = &self.paths;
        Places {
            authorities,
            client,
            serving,
            config,
            key,
            due,
        }
    }

    fn is_new(&self, path: &str) -> bool {
        is_signed_by(&read(path), self.new.certificate())
    }

    fn pin(&self) -> Option<String> {
        let claim = claim(&Held::read(&self.places()).unwrap());
        claim.filter(|(_, has)| *has).map(|(pin, _)| pin)
    }

    /// Which of these are there: the key, the serving certificate, that a restart is due.
    fn there(&self) -> [bool; 3] {
        let places = self.places();
        [places.key, places.serving, places.due].map(|path| Path::new(path).exists())
    }

    /// A look at which the tenant answers at once.
    async fn look(&self, renewal: &mut Renewal) -> Result<()> {
        let obtain = async || Ok(client_of(&self.new, NODE));
        renewal.look_at(&self.places(), NODE, obtain).await
    }

    /// The kubelet starts, and gets the serving certificate that it asks for.
    fn starts(&self) {
        fs::remove_file(self.places().due).unwrap();
        if !self.there()[1] {
            put(self.places().serving, &serving_of(&self.new));
        }
    }
}

fn put(path: &str, text: &str) {
    write(path, text, 0o600).unwrap();
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

fn issued(by: &Authority, node: &str, usage: LeafUsage) -> String {
    let request = leaf(&format!("system:node:{node}"), usage);
    let pair = by.issue(&request, OffsetDateTime::now_utc()).unwrap();
    format!("{}{}", pair.certificate, pair.key.as_pem())
}

fn client_of(by: &Authority, node: &str) -> String {
    issued(by, node, LeafUsage::Client)
}

fn serving_of(by: &Authority) -> String {
    issued(by, NODE, LeafUsage::Server)
}

#[tokio::test]
async fn all_that_the_kubelet_has_is_of_the_new_authority_after_one_restart_and_is_told_then() {
    let machine = Machine::new();
    let mut renewal = Renewal::default();
    assert_eq!(machine.pin(), None);
    machine.look(&mut renewal).await.unwrap();
    assert!(machine.is_new(machine.places().client));
    assert_eq!(machine.there(), [false, false, true]);
    assert_eq!(machine.pin(), None);
    machine.starts();
    let pin = ca_hash(machine.new.certificate()).unwrap();
    assert_eq!(machine.pin(), Some(pin));
    let client = read(machine.places().client);
    machine.look(&mut renewal).await.unwrap();
    assert_eq!(read(machine.places().client), client);
    assert_eq!(machine.there(), [false, true, false]);
}

#[tokio::test]
async fn what_the_old_authority_still_signs_is_not_kept_and_asked_again_by_another_key() {
    let machine = Machine::new();
    let places = machine.places();
    let before = read(places.client);
    let signing = Arc::new(Mutex::new(Signing::default()));
    let server = serve(Shown::Leaf(&machine.old), requests_of(signing.clone())).await;
    let server = server.to_string();
    let mut renewal = Renewal::default();
    let mut look = async || {
        let obtain = async || {
            let client = client(&server, Some(&read(places.authorities)), &Who::Nobody)?;
            certificate::obtain(&client, NODE, places.key, &PACE).await
        };
        renewal.look_at(&places, NODE, obtain).await
    };
    let asked = || signing.lock().unwrap().requests.len();
    // Nobody answers: the same request is gone on with.
    for _ in 0..2 {
        assert!(look().await.is_err());
        assert_eq!((asked(), machine.there()), (1, [true, true, false]));
    }
    signing.lock().unwrap().by = Some(authority_again(&machine.old));
    let refused = format!("{:#}", look().await.unwrap_err());
    assert!(refused.contains("another authority"), "{refused}");
    assert_eq!((asked(), machine.there()), (1, [false, true, false]));
    assert_eq!(read(places.client), before);
    signing.lock().unwrap().by = Some(authority_again(&machine.new));
    look().await.unwrap();
    assert_eq!((asked(), machine.there()), (2, [false, false, true]));
    assert!(machine.is_new(places.client));
}

fn authority_again(one: &Authority) -> Authority {
    Authority::from_pem(one.certificate(), one.key().as_pem()).unwrap()
}

#[tokio::test]
async fn a_kubelet_without_a_serving_certificate_is_restarted_with_its_client_certificate() {
    let machine = Machine::new();
    fs::remove_file(machine.places().serving).unwrap();
    machine.look(&mut Renewal::default()).await.unwrap();
    assert!(machine.is_new(machine.places().client));
    assert_eq!(machine.there(), [false, false, true]);
}

#[tokio::test]
async fn a_certificate_of_another_node_is_not_kept() {
    let machine = Machine::new();
    let before = read(machine.places().client);
    let other = client_of(&machine.new, "w2");
    let looked = Renewal::default()
        .look_at(&machine.places(), NODE, async || Ok(other))
        .await;
    assert!(looked.is_err());
    assert_eq!(read(machine.places().client), before);
    assert_eq!(machine.there(), [false, true, false]);
}

#[tokio::test]
async fn whoever_was_cut_off_goes_on_at_the_next_look() {
    let cuts: [fn(&Machine); 5] = [
        // A key was made, and perhaps asked with.
        |machine| put(machine.places().key, "key"),
        |machine| put(machine.places().due, ""),
        // The certificate was kept.
        |machine| {
            let places = machine.places();
            put(places.due, "");
            put(places.key, "key");
            put(places.client, &client_of(&machine.new, NODE));
        },
        // The kubelet was restarted before its serving certificate was removed.
        |machine| {
            let places = machine.places();
            put(places.client, &client_of(&machine.new, NODE));
        },
        // The serving certificate was removed, and the kubelet not restarted.
        |machine| {
            let places = machine.places();
            put(places.due, "");
            put(places.client, &client_of(&machine.new, NODE));
            fs::remove_file(places.serving).unwrap();
        },
    ];
    for (n, cut) in cuts.into_iter().enumerate() {
        let machine = Machine::new();
        cut(&machine);
        assert_eq!(machine.pin(), None, "{n}");
        machine.look(&mut Renewal::default()).await.unwrap();
        assert!(machine.is_new(machine.places().client), "{n}");
        assert_eq!(machine.there(), [false, false, true], "{n}");
        machine.starts();
        assert!(machine.pin().is_some(), "{n}");
    }
}

#[tokio::test]
async fn a_kubelet_that_serves_by_nothing_of_the_tenants_is_done_with_its_client_certificate() {
    let machine = Machine::new();
    let places = machine.places();
    fs::remove_file(places.serving).unwrap();
    put(places.client, &client_of(&machine.new, NODE));
    assert_eq!(machine.pin(), None);
    let own = "serverTLSBootstrap: true\ntlsCertFile: /own.crt\n";
    for config in ["serverTLSBootstrap: false\n", "{}", own] {
        put(places.config, config);
        assert!(machine.pin().is_some(), "{config}");
    }
    put(places.due, "");
    assert_eq!(machine.pin(), None);
    // What is there is served by, whatever the configuration says.
    fs::remove_file(places.due).unwrap();
    put(places.serving, &serving_of(&machine.old));
    assert_eq!(machine.pin(), None);
}

#[tokio::test]
async fn while_it_leads_to_nothing_there_are_ever_fewer_attempts_and_then_all_goes_on() {
    let machine = Machine::new();
    let mut renewal = Renewal::default();
    let mut attempts = Vec::new();
    for look in 0..60 {
        let obtain = async || {
            attempts.push(look);
            Ok(client_of(&machine.old, NODE))
        };
        let _ = renewal.look_at(&machine.places(), NODE, obtain).await;
    }
    assert_eq!(attempts, [0, 1, 3, 7, 15, 31, 47]);
    for _ in 0..16 {
        machine.look(&mut renewal).await.unwrap();
    }
    assert_eq!(machine.there(), [false, false, true]);
    // Its kubelet gets another one of the old authority.
    let mut restarts = Vec::new();
    for look in 0..20 {
        put(machine.places().serving, &serving_of(&machine.old));
        machine.look(&mut renewal).await.unwrap();
        if !machine.there()[1] {
            restarts.push(look);
        }
    }
    assert_eq!(restarts, [0, 2, 6, 14]);
}
