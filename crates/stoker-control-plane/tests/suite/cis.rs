//! The CIS Kubernetes Benchmark's items for control planes (sections 1.1 to 1.4 of 1.11), on every pod that is built.
//! `docs/cis.md` lists those that do not apply, and why.

mod items;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};
use stoker_control_plane::Objects;

use self::items::{API_SERVER, ITEMS, Item, answers};
use crate::scenario::{Scenario, cluster_ip, pod, spec};

/// Weak are those without forward secrecy, or with CBC, RC4 or 3DES.
const STRONG: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// What is looked at.
pub(crate) struct Manifest {
    pod: PodSpec,
    /// The API server's `AuthenticationConfiguration` and `EncryptionConfiguration`.
    authentication: Value,
    encryption: Value,
    /// Who decides, in order, whether a flag says so or a file.
    authorizers: Vec<String>,
}

impl Manifest {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self::from(&scenario.build())
    }

    pub(crate) fn from(objects: &Objects) -> Self {
        let file = |wanted: &str| -> Option<Value> {
            let maps = objects.config_maps.iter();
            let mut files = maps.flat_map(|map| map.data.iter().flatten());
            let (_, text) = files.find(|(name, _)| *name == wanted)?;
            Some(serde_saphyr::from_str(text).unwrap())
        };
        let keys = objects.keys.iter();
        let encryption = keys
            .filter_map(|secret| secret.data.as_ref()?.get("encryption-config.yaml"))
            .map(|bytes| serde_saphyr::from_str(std::str::from_utf8(&bytes.0).unwrap()).unwrap())
            .next();
        let authorizers = if let Some(file) = file("authorization-config.yaml") {
            let list = file["authorizers"].as_array().unwrap().iter();
            list.map(|each| each["type"].as_str().unwrap().to_owned())
                .collect()
        } else {
            let args = pod(objects).containers[API_SERVER].args.iter().flatten();
            let mut modes = args.filter_map(|arg| arg.strip_prefix("--authorization-mode="));
            modes
                .next()
                .unwrap()
                .split(',')
                .map(str::to_owned)
                .collect()
        };
        Self {
            pod: pod(objects).clone(),
            authorizers,
            authentication: file("authentication-config.yaml").unwrap(),
            encryption: encryption.unwrap(),
        }
    }

    fn flags(&self, component: usize) -> impl Iterator<Item = (&str, &str)> {
        let args = self.pod.containers[component].args.iter().flatten();
        args.filter_map(|arg| arg.trim_start_matches('-').split_once('='))
    }

    /// The last value of a flag, which is the one that counts.
    fn flag(&self, component: usize, name: &str) -> Option<&str> {
        let values = self.flags(component).filter(|(flag, _)| *flag == name);
        values.map(|(_, value)| value).last()
    }

    fn is(&self, component: usize, name: &str, wanted: &str) -> bool {
        self.flag(component, name) == Some(wanted)
    }

    fn has(&self, component: usize, names: &[&str]) -> bool {
        let there = |name: &&str| {
            self.flag(component, name)
                .is_some_and(|value| !value.is_empty())
        };
        names.iter().all(there)
    }

    fn lists(&self, name: &str, entry: &str) -> bool {
        let list = self.flag(API_SERVER, name).unwrap_or_default();
        list.split(',').any(|listed| listed == entry)
    }

    fn decides(&self, authorizer: &str) -> bool {
        self.authorizers.iter().any(|each| each == authorizer)
    }

    /// Requests are recorded somewhere.
    fn audits(&self) -> bool {
        let to = ["audit-log-path", "audit-webhook-config-file"];
        to.iter().any(|flag| self.has(API_SERVER, &[flag]))
    }

    /// Of an audit log, if there is one.
    fn at_least(&self, name: &str, least: i64) -> bool {
        let value = self
            .flag(API_SERVER, name)
            .and_then(|text| text.parse().ok());
        let path = self.flag(API_SERVER, "audit-log-path");
        path.is_none() || value.is_some_and(|value: i64| value >= least)
    }

    fn strong(&self, component: usize) -> bool {
        let suites = self
            .flag(component, "tls-cipher-suites")
            .unwrap_or_default();
        suites.split(',').all(|suite| STRONG.contains(&suite))
    }

    fn anonymous_paths_are_harmless(&self) -> bool {
        let anonymous = &self.authentication["anonymous"];
        let paths = anonymous["conditions"].as_array();
        let harmless = |condition: &Value| {
            [
                "/healthz",
                "/livez",
                "/readyz",
                "/api/v1/namespaces/kube-public/configmaps/cluster-info",
            ]
            .contains(&condition["path"].as_str().unwrap_or_default())
        };
        anonymous["enabled"] == json!(false)
            || paths.is_some_and(|paths| !paths.is_empty() && paths.iter().all(harmless))
    }

    fn files_are_private(&self) -> bool {
        let projected = self.pod.volumes.iter().flatten().filter_map(|volume| {
            let own = ["api-server", "controller-manager", "scheduler"];
            volume
                .projected
                .as_ref()
                .filter(|_| own.contains(&&*volume.name))
        });
        let modes: Vec<_> = projected.map(|volume| volume.default_mode).collect();
        modes.len() == 3
            && modes
                .iter()
                .all(|mode| mode.is_some_and(|mode| mode & 0o337 == 0))
    }

    fn secrets_are_encrypted_first(&self) -> bool {
        let rules = self.encryption["resources"].as_array().unwrap();
        let mut rules = rules.iter().filter(|rule| {
            rule["resources"]
                .as_array()
                .unwrap()
                .contains(&json!("secrets"))
        });
        rules.all(|rule| {
            let first = rule["providers"][0]
                .as_object()
                .unwrap()
                .keys()
                .next()
                .unwrap();
            ["secretbox", "aescbc", "aesgcm", "kms"].contains(&&**first)
        })
    }
}

/// The items that do not hold, but for those that people answered by an argument of their own (`asked`).
pub(crate) fn violations(manifest: &Manifest, asked: &[String]) -> Vec<&'static str> {
    let answered = |item: &&Item| asked.iter().any(|name| answers(item.id).contains(&&**name));
    let broken = ITEMS.iter().filter(|item| !(item.holds)(manifest));
    broken
        .filter(|item| !answered(item))
        .map(|item| item.id)
        .collect()
}

/// A tenant of which every item asks something.
fn audited() -> Scenario {
    let mut spec = spec("ClusterIP", 2, "v1.36.3", &json!({}));
    spec["kubernetes"]["audit"] = json!({ "log": { "volume": "events" } });
    spec["controlPlane"]["deployment"]["additionalVolumes"] =
        json!([{ "name": "events", "emptyDir": {} }]);
    Scenario::new(&spec, None)
}

#[test]
fn what_is_built_breaks_no_item() {
    for scenario in [cluster_ip(), audited()] {
        assert_eq!(violations(&Manifest::of(&scenario), &[]), [""; 0]);
    }
    for version in ["v1.33.13", "v1.34.4", "v1.35.4"] {
        let scenario = Scenario::new(&spec("LoadBalancer", 1, version, &json!({})), None);
        assert_eq!(
            violations(&Manifest::of(&scenario), &[]),
            [""; 0],
            "{version}"
        );
    }
}

#[test]
fn every_item_can_fail_and_is_told_from_the_others() {
    let scenario = audited();
    for item in ITEMS {
        let mut manifest = Manifest::of(&scenario);
        (item.broken_by)(&mut manifest);
        assert_eq!(violations(&manifest, &[]), [item.id]);
    }
}

/// Nobody reads the documents against the list by hand.
#[test]
fn the_documents_name_every_item() {
    let text = include_str!("../../../../docs/cis.md");
    for item in ITEMS {
        assert!(text.contains(&format!("| {} |", item.id)), "{}", item.id);
    }
}
