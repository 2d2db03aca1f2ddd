//! The `restricted` profile of the Pod Security Standards, rule by rule, on what is built.

use serde_json::{Value, json};

use crate::scenario::{cluster_ip, pod};

/// Sysctls that the profile calls safe, up to Kubernetes 1.33.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const SELINUX: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// The rules that a pod's spec breaks; kubernetes.io/docs/concepts/security/pod-security-standards.
pub(crate) fn broken(pod: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, what: &str| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    for namespace in ["hostNetwork", "hostPID", "hostIPC"] {
        rule(pod[namespace] != json!(true), namespace);
    }
    for volume in list(&pod["volumes"]) {
        let kinds = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        let mut sources = volume.as_object().unwrap().keys();
        rule(
            sources.all(|key| key == "name" || kinds.contains(&key.as_str())),
            "volume",
        );
    }
    let for_pod = &pod["securityContext"];
    let sysctls = list(&for_pod["sysctls"]);
    let safe = |sysctl: &Value| {
        sysctl["name"]
            .as_str()
            .is_some_and(|name| SAFE.contains(&name))
    };
    rule(sysctls.iter().all(safe), "sysctls");
    for container in list(&pod["containers"])
        .iter()
        .chain(&list(&pod["initContainers"]))
    {
        let own = &container["securityContext"];
        let either = |field: &str| {
            if own[field].is_null() {
                &for_pod[field]
            } else {
                &own[field]
            }
        };
        rule(own["privileged"] != json!(true), "privileged");
        rule(
            own["allowPrivilegeEscalation"] == json!(false),
            "allowPrivilegeEscalation",
        );
        rule(
            list(&own["capabilities"]["drop"]).contains(&json!("ALL")),
            "drop",
        );
        let added = list(&own["capabilities"]["add"]);
        rule(added.iter().all(|name| name == "NET_BIND_SERVICE"), "add");
        rule(
            own["procMount"].is_null() || own["procMount"] == "Default",
            "procMount",
        );
        rule(*either("runAsNonRoot") == json!(true), "runAsNonRoot");
        rule(*either("runAsUser") != json!(0), "runAsUser");
        let seccomp = either("seccompProfile")["type"]
            .as_str()
            .unwrap_or_default();
        rule(
            ["RuntimeDefault", "Localhost"].contains(&seccomp),
            "seccompProfile",
        );
        for options in [&own["seLinuxOptions"], &for_pod["seLinuxOptions"]] {
            let type_ = options["type"].as_str().unwrap_or_default();
            rule(SELINUX.contains(&type_), "seLinuxOptions");
            let free = options["user"].is_null() && options["role"].is_null();
            rule(free, "seLinuxOptions");
        }
        for profile in [&own["appArmorProfile"], &for_pod["appArmorProfile"]] {
            rule(profile["type"] != "Unconfined", "appArmorProfile");
        }
        for port in list(&container["ports"]) {
            rule(port["hostPort"].is_null(), "hostPort");
        }
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| &container[p]);
        let hooks = ["preStop", "postStart"].map(|hook| &container["lifecycle"][hook]);
        for asks in probes.into_iter().chain(hooks) {
            rule(asks["httpGet"]["host"].is_null(), "probe host");
            rule(asks["tcpSocket"]["host"].is_null(), "probe host");
        }
    }
    broken
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn built() -> Value {
    serde_json::to_value(pod(&cluster_ip().build())).unwrap()
}

#[test]
fn the_pod_keeps_every_rule() {
    assert_eq!(broken(&built()), Vec::<String>::new());
}

#[test]
fn the_checker_finds_each_breach() {
    let breaches = [
        ("hostNetwork", "/hostNetwork", json!(true)),
        ("hostPID", "/hostPID", json!(true)),
        (
            "volume",
            "/volumes",
            json!([{ "name": "a", "hostPath": {} }]),
        ),
        ("runAsNonRoot", "/securityContext/runAsNonRoot", json!(null)),
        ("runAsUser", "/securityContext/runAsUser", json!(0)),
        (
            "seccompProfile",
            "/securityContext/seccompProfile",
            json!(null),
        ),
        (
            "drop",
            "/containers/1/securityContext/capabilities/drop",
            json!([]),
        ),
        (
            "add",
            "/containers/0/securityContext/capabilities/add",
            json!(["SYS_ADMIN"]),
        ),
        (
            "privileged",
            "/containers/0/securityContext/privileged",
            json!(true),
        ),
        (
            "allowPrivilegeEscalation",
            "/containers/2/securityContext/allowPrivilegeEscalation",
            json!(null),
        ),
        ("hostPort", "/containers/0/ports/0/hostPort", json!(6443)),
        (
            "sysctls",
            "/securityContext/sysctls",
            json!([{ "name": "kernel.msgmax", "value": "1" }]),
        ),
        (
            "seLinuxOptions",
            "/containers/0/securityContext/seLinuxOptions",
            json!({ "type": "spc_t" }),
        ),
        (
            "appArmorProfile",
            "/securityContext/appArmorProfile",
            json!({ "type": "Unconfined" }),
        ),
        (
            "procMount",
            "/containers/0/securityContext/procMount",
            json!("Unmasked"),
        ),
        (
            "probe host",
            "/containers/0/livenessProbe/httpGet/host",
            json!("10.0.0.1"),
        ),
    ];
    for (rule, path, value) in breaches {
        let mut pod = built();
        let (parent, field) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[field] = value;
        let found = broken(&pod);
        assert!(found.contains(&rule.to_owned()), "{path}: {found:?}");
    }
}

#[test]
fn the_pod_holds_no_management_credential() {
    let pod = built();
    assert_eq!(pod["automountServiceAccountToken"], json!(false));
    assert_eq!(pod["enableServiceLinks"], json!(false));
    assert!(!pod.to_string().contains("serviceAccountToken\""));
    for container in list(&pod["containers"]) {
        assert_eq!(
            container["securityContext"]["readOnlyRootFilesystem"],
            json!(true)
        );
    }
}
