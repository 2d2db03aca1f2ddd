//! The CIS Kubernetes Benchmark's items for control planes (sections 1.1 to 1.4 of 1.11), on every pod that is built.
//! `docs/cis.md` lists those that do not apply, and why.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};
use stoker_api::tenant::Tenant;
use stoker_control_plane::Objects;

use crate::scenario::{Scenario, cluster_ip, pod, spec};

const API_SERVER: usize = 0;
const CONTROLLER_MANAGER: usize = 1;
const SCHEDULER: usize = 2;

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
    /// Whether requests are recorded in files.
    audits_to_files: bool,
}

impl Manifest {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self::from(&scenario.build(), &scenario.tenant)
    }

    pub(crate) fn from(objects: &Objects, tenant: &Tenant) -> Self {
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
        let audit = tenant.audit.as_ref();
        let log = audit.and_then(|audit| audit.log.as_ref());
        let authorizers = match file("authorization-config.yaml") {
            Some(file) => {
                let list = file["authorizers"].as_array().unwrap().iter();
                list.map(|each| each["type"].as_str().unwrap().to_owned())
                    .collect()
            }
            None => {
                let args = pod(objects).containers[API_SERVER].args.iter().flatten();
                let mut modes = args.filter_map(|arg| arg.strip_prefix("--authorization-mode="));
                modes
                    .next()
                    .unwrap()
                    .split(',')
                    .map(str::to_owned)
                    .collect()
            }
        };
        Self {
            pod: pod(objects).clone(),
            authorizers,
            authentication: file("authentication-config.yaml").unwrap(),
            encryption: encryption.unwrap(),
            audits_to_files: log.is_some_and(|log| log.volume.is_some()),
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

    fn at_least(&self, name: &str, least: i64) -> bool {
        let value = self
            .flag(API_SERVER, name)
            .and_then(|text| text.parse().ok());
        !self.audits_to_files || value.is_some_and(|value: i64| value >= least)
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

/// One item.
struct Item {
    id: &'static str,
    holds: fn(&Manifest) -> bool,
    /// Breaks it, and it alone.
    broken_by: fn(&mut Manifest),
}

const ITEMS: &[Item] = &[
    item("1.1.19-21", Manifest::files_are_private, |m| {
        let mut volumes = m.pod.volumes.iter_mut().flatten();
        let volume = volumes
            .find_map(|volume| volume.projected.as_mut())
            .unwrap();
        volume.default_mode = Some(0o644);
    }),
    item("1.2.1", Manifest::anonymous_paths_are_harmless, |m| {
        m.authentication["anonymous"]["conditions"] = json!([{ "path": "/api" }]);
    }),
    item(
        "1.2.2",
        |m| m.flag(API_SERVER, "token-auth-file").is_none(),
        |m| {
            set(m, API_SERVER, "token-auth-file", "/tokens");
        },
    ),
    item(
        "1.2.4",
        |m| {
            m.has(
                API_SERVER,
                &["kubelet-client-certificate", "kubelet-client-key"],
            )
        },
        |m| remove(m, API_SERVER, "kubelet-client-key"),
    ),
    item(
        "1.2.6",
        |m| !m.decides("AlwaysAllow"),
        |m| {
            m.authorizers.push("AlwaysAllow".to_owned());
        },
    ),
    item(
        "1.2.7",
        |m| m.decides("Node"),
        |m| m.authorizers.retain(|each| each != "Node"),
    ),
    item(
        "1.2.8",
        |m| m.decides("RBAC"),
        |m| m.authorizers.retain(|each| each != "RBAC"),
    ),
    item(
        "1.2.10",
        |m| !m.lists("enable-admission-plugins", "AlwaysAdmit"),
        |m| {
            set(
                m,
                API_SERVER,
                "enable-admission-plugins",
                "NodeRestriction,AlwaysAdmit",
            );
        },
    ),
    item(
        "1.2.12",
        |m| !m.lists("disable-admission-plugins", "ServiceAccount"),
        |m| {
            set(m, API_SERVER, "disable-admission-plugins", "ServiceAccount");
        },
    ),
    item(
        "1.2.13",
        |m| !m.lists("disable-admission-plugins", "NamespaceLifecycle"),
        |m| {
            set(
                m,
                API_SERVER,
                "disable-admission-plugins",
                "NamespaceLifecycle",
            );
        },
    ),
    item(
        "1.2.14",
        |m| m.lists("enable-admission-plugins", "NodeRestriction"),
        |m| {
            set(m, API_SERVER, "enable-admission-plugins", "PodSecurity");
        },
    ),
    item(
        "1.2.15",
        |m| m.is(API_SERVER, "profiling", "false"),
        |m| {
            remove(m, API_SERVER, "profiling");
        },
    ),
    item(
        "1.2.16",
        |m| m.has(API_SERVER, &["audit-policy-file", "audit-log-path"]) || !m.audits_to_files,
        |m| remove(m, API_SERVER, "audit-log-path"),
    ),
    item(
        "1.2.17",
        |m| m.at_least("audit-log-maxage", 30),
        |m| {
            set(m, API_SERVER, "audit-log-maxage", "7");
        },
    ),
    item(
        "1.2.18",
        |m| m.at_least("audit-log-maxbackup", 10),
        |m| {
            set(m, API_SERVER, "audit-log-maxbackup", "1");
        },
    ),
    item(
        "1.2.19",
        |m| m.at_least("audit-log-maxsize", 100),
        |m| {
            set(m, API_SERVER, "audit-log-maxsize", "1");
        },
    ),
    item(
        "1.2.20",
        |m| !m.is(API_SERVER, "request-timeout", "0"),
        |m| {
            set(m, API_SERVER, "request-timeout", "0");
        },
    ),
    item(
        "1.2.21",
        |m| !m.is(API_SERVER, "service-account-lookup", "false"),
        |m| {
            set(m, API_SERVER, "service-account-lookup", "false");
        },
    ),
    item(
        "1.2.22",
        |m| m.has(API_SERVER, &["service-account-key-file"]),
        |m| {
            remove(m, API_SERVER, "service-account-key-file");
        },
    ),
    item(
        "1.2.23",
        |m| m.has(API_SERVER, &["etcd-certfile", "etcd-keyfile"]),
        |m| {
            remove(m, API_SERVER, "etcd-keyfile");
        },
    ),
    item(
        "1.2.24",
        |m| m.has(API_SERVER, &["tls-cert-file", "tls-private-key-file"]),
        |m| {
            remove(m, API_SERVER, "tls-private-key-file");
        },
    ),
    item(
        "1.2.25",
        |m| m.has(API_SERVER, &["client-ca-file"]),
        |m| {
            remove(m, API_SERVER, "client-ca-file");
        },
    ),
    item(
        "1.2.26",
        |m| m.has(API_SERVER, &["etcd-cafile"]),
        |m| {
            remove(m, API_SERVER, "etcd-cafile");
        },
    ),
    item(
        "1.2.27",
        |m| m.has(API_SERVER, &["encryption-provider-config"]),
        |m| {
            remove(m, API_SERVER, "encryption-provider-config");
        },
    ),
    item("1.2.28", Manifest::secrets_are_encrypted_first, |m| {
        m.encryption["resources"][0]["providers"] = json!([{ "identity": {} }]);
    }),
    item(
        "1.2.29",
        |m| (API_SERVER..=SCHEDULER).all(|component| m.strong(component)),
        |m| {
            set(
                m,
                API_SERVER,
                "tls-cipher-suites",
                "TLS_RSA_WITH_AES_128_CBC_SHA",
            );
        },
    ),
    item(
        "1.3.1",
        |m| !m.is(CONTROLLER_MANAGER, "terminated-pod-gc-threshold", "0"),
        |m| {
            set(m, CONTROLLER_MANAGER, "terminated-pod-gc-threshold", "0");
        },
    ),
    item(
        "1.3.2",
        |m| m.is(CONTROLLER_MANAGER, "profiling", "false"),
        |m| {
            remove(m, CONTROLLER_MANAGER, "profiling");
        },
    ),
    item(
        "1.3.3",
        |m| {
            m.is(
                CONTROLLER_MANAGER,
                "use-service-account-credentials",
                "true",
            )
        },
        |m| remove(m, CONTROLLER_MANAGER, "use-service-account-credentials"),
    ),
    item(
        "1.3.4",
        |m| m.has(CONTROLLER_MANAGER, &["service-account-private-key-file"]),
        |m| {
            remove(m, CONTROLLER_MANAGER, "service-account-private-key-file");
        },
    ),
    item(
        "1.3.5",
        |m| m.has(CONTROLLER_MANAGER, &["root-ca-file"]),
        |m| {
            remove(m, CONTROLLER_MANAGER, "root-ca-file");
        },
    ),
    item(
        "1.3.6",
        |m| {
            let gates = m
                .flag(CONTROLLER_MANAGER, "feature-gates")
                .unwrap_or_default();
            !gates.contains("RotateKubeletServerCertificate=false")
        },
        |m| {
            set(
                m,
                CONTROLLER_MANAGER,
                "feature-gates",
                "RotateKubeletServerCertificate=false",
            )
        },
    ),
    item(
        "1.4.1",
        |m| m.is(SCHEDULER, "profiling", "false"),
        |m| {
            remove(m, SCHEDULER, "profiling");
        },
    ),
];

const fn item(
    id: &'static str,
    holds: fn(&Manifest) -> bool,
    broken_by: fn(&mut Manifest),
) -> Item {
    Item {
        id,
        holds,
        broken_by,
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

/// Arguments of the allow-list that an item is about.
fn answers(id: &str) -> &'static [&'static str] {
    match id {
        "1.2.12" | "1.2.13" => &["disable-admission-plugins"],
        "1.2.15" | "1.3.2" | "1.4.1" => &["profiling"],
        "1.2.16" => &["audit-log-path", "audit-policy-file"],
        "1.2.17" => &["audit-log-maxage"],
        "1.2.18" => &["audit-log-maxbackup"],
        "1.2.19" => &["audit-log-maxsize"],
        "1.2.20" => &["request-timeout"],
        "1.2.21" => &["service-account-lookup"],
        "1.2.29" => &["tls-cipher-suites"],
        "1.3.1" => &["terminated-pod-gc-threshold"],
        "1.3.6" => &["feature-gates"],
        _ => &[],
    }
}

fn remove(manifest: &mut Manifest, component: usize, name: &str) {
    let prefix = format!("--{name}=");
    let args = manifest.pod.containers[component].args.as_mut().unwrap();
    args.retain(|arg| !arg.starts_with(&prefix));
}

fn set(manifest: &mut Manifest, component: usize, name: &str, value: &str) {
    remove(manifest, component, name);
    let args = manifest.pod.containers[component].args.as_mut().unwrap();
    args.push(format!("--{name}={value}"));
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
