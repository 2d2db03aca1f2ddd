//! The items, and what breaks each.

use serde_json::json;

use super::Manifest;

pub(super) const API_SERVER: usize = 0;
const CONTROLLER_MANAGER: usize = 1;
const SCHEDULER: usize = 2;

/// One item.
pub(super) struct Item {
    pub(super) id: &'static str,
    pub(super) holds: fn(&Manifest) -> bool,
    /// Breaks it, and it alone.
    pub(super) broken_by: fn(&mut Manifest),
}

pub(super) const ITEMS: &[Item] = &[
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
        "1.2.5",
        |m| m.has(API_SERVER, &["kubelet-certificate-authority"]),
        |m| remove(m, API_SERVER, "kubelet-certificate-authority"),
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
        |m| m.has(API_SERVER, &["audit-policy-file"]) && m.audits(),
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
            );
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

/// Arguments of the allow-list that an item is about.
pub(super) fn answers(id: &str) -> &'static [&'static str] {
    match id {
        "1.2.5" => &["kubelet-certificate-authority"],
        "1.2.12" | "1.2.13" => &["disable-admission-plugins"],
        "1.2.15" | "1.3.2" | "1.4.1" => &["profiling"],
        "1.2.16" => &[
            "audit-log-path",
            "audit-policy-file",
            "audit-webhook-config-file",
        ],
        "1.2.17" => &["audit-log-maxage", "audit-log-path"],
        "1.2.18" => &["audit-log-maxbackup", "audit-log-path"],
        "1.2.19" => &["audit-log-maxsize", "audit-log-path"],
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
