//! What a kubelet starts by. Pure but for the writing.

use std::fs;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};
use stoker_api::labels::{JOINING, LISTENER, OF_HOST, TUNNEL};

use super::paths::{
    AUTHORITY, CERTIFICATE, KUBECONFIG, KUBELET_CONFIG, KUBELET_FLAGS, Membership, write,
};
use super::report;

/// Of a `KubeletConfiguration`: the container runtime's socket.
pub(crate) const ENDPOINT: &str = "containerRuntimeEndpoint";

/// What is this machine's own of a kubelet's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// Name of the node.
    pub(crate) node: String,
    /// As `unix:///run/containerd/containerd.sock`.
    pub(crate) runtime: String,
    /// Whether systemd has the control groups.
    pub(crate) systemd: bool,
    /// `--node-ip`, where it is given.
    pub(crate) node_ip: Option<String>,
    /// Merge patch (RFC 7386) over the tenant's configuration.
    pub(crate) patch: Value,
}

/// What a Node that registers again is to have, as it has it now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    taints: Vec<Taint>,
    labels: Vec<(String, String)>,
}

impl Kept {
    /// While it has not come, the joining taint; and the labels of what its agent `does`, so that nobody else comes to do it.
    pub(crate) fn joining(does: &[&str]) -> Self {
        let joining = Taint {
            key: JOINING.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        Self {
            taints: vec![joining],
            labels: does
                .iter()
                .map(|label| ((*label).to_owned(), OF_HOST.to_owned()))
                .collect(),
        }
    }

    /// Of a Node that was given what its token gives: what is not Kubernetes' own.
    pub(crate) fn of(node: &Node) -> Self {
        let taints = node.spec.iter().flat_map(|spec| &spec.taints).flatten();
        let labels = node.metadata.labels.iter().flatten();
        // What the agent tells of the machine and of itself is its to change.
        let told = report::written(node);
        let is_told = |key: &str| told.contains(key) || [LISTENER, TUNNEL].contains(&key);
        let labels = labels.filter(|(key, _)| !is_kubernetes(key) && !is_told(key));
        Self {
            taints: taints
                .filter(|taint| !is_kubernetes(&taint.key))
                .cloned()
                .collect(),
            labels: labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }
}

/// What the control plane sets, and a node may not.
fn is_kubernetes(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let of = |zone: &str| {
        let rest = prefix.strip_suffix(zone);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    of("kubernetes.io") || of("k8s.io")
}

/// The kubelet's configuration: the tenant's, this machine's, and what it registers with.
pub(crate) fn kubelet_config(tenant: &Value, local: &Local, kept: &Kept) -> Value {
    let mut config = tenant.clone();
    merge(
        &mut config,
        &json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": { "x509": { "clientCAFile": AUTHORITY } },
            ENDPOINT: local.runtime,
            "rotateCertificates": true,
        }),
    );
    if config.get("cgroupDriver").is_none() {
        let driver = if local.systemd { "systemd" } else { "cgroupfs" };
        config["cgroupDriver"] = driver.into();
    }
    merge(&mut config, &local.patch);
    let mut taints = config["registerWithTaints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    taints.extend(kept.taints.iter().map(|taint| json!(taint)));
    if !taints.is_empty() {
        config["registerWithTaints"] = taints.into();
    }
    config
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            into.as_object_mut().map(|into| into.remove(key));
        } else if value.is_object() {
            merge(&mut into[key], value);
        } else {
            into[key] = value.clone();
        }
    }
}

/// In the form that kubeadm has it, for its systemd drop-in and ours.
pub(crate) fn flags(local: &Local, kept: &Kept) -> String {
    let mut flags = vec![format!("--hostname-override={}", local.node)];
    flags.extend(local.node_ip.iter().map(|ip| format!("--node-ip={ip}")));
    if !kept.labels.is_empty() {
        let labels = kept
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        flags.push(format!(
            "--node-labels={}",
            labels.collect::<Vec<_>>().join(",")
        ));
    }
    format!("KUBELET_KUBEADM_ARGS=\"{}\"\n", flags.join(" "))
}

/// The kubelet's way to the API server; authorities and certificate stay files, since both change.
pub(crate) fn kubeconfig(server: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{ "name": "default", "cluster": {
            "certificate-authority": AUTHORITY, "server": format!("https://{server}"),
        }}],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": node } }],
        "users": [{ "name": node, "user": {
            "client-certificate": CERTIFICATE, "client-key": CERTIFICATE,
        }}],
    })
}

/// Everything that the kubelet starts by; its configuration last, for whoever waits for it.
pub(crate) fn write_all(
    server: &str,
    authorities: &str,
    tenant: &Value,
    local: &Local,
    kept: &Kept,
) -> Result<()> {
    write(AUTHORITY, authorities, 0o644)?;
    let kubeconfig = serde_json::to_string_pretty(&kubeconfig(server, &local.node))?;
    write(KUBECONFIG, &kubeconfig, 0o600)?;
    write(KUBELET_FLAGS, &flags(local, kept), 0o644)?;
    // JSON is YAML.
    let config = serde_json::to_string_pretty(&kubelet_config(tenant, local, kept))?;
    write(KUBELET_CONFIG, &config, 0o644)
}

/// Whether the files of the kubelet that are here are of this node, or there are none: others may have joined the machine to
/// something else since.
pub(crate) fn are_of(member: &Membership) -> Result<bool> {
    match fs::read_to_string(KUBECONFIG) {
        Ok(text) => Ok(is_way_of(&text, &member.server, &member.node)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("reading {KUBECONFIG}")),
    }
}

/// Whether a kubeconfig is what join writes for this node; other tools name users otherwise.
fn is_way_of(text: &str, server: &str, node: &str) -> bool {
    let parsed: Value = serde_saphyr::from_str(text).unwrap_or_default();
    parsed["clusters"][0]["cluster"]["server"] == format!("https://{server}")
        && parsed["users"][0]["name"] == node
}

/// The runtime that the kubelet works with, as its configuration says.
pub(crate) fn runtime() -> Option<String> {
    runtime_in(&fs::read_to_string(KUBELET_CONFIG).ok()?)
}

fn runtime_in(config: &str) -> Option<String> {
    let parsed: Value = serde_saphyr::from_str(config).ok()?;
    parsed[ENDPOINT].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            node: "w1".to_owned(),
            runtime: "unix:///run/containerd/containerd.sock".to_owned(),
            systemd: true,
            node_ip: None,
            patch: json!({ "failSwapOn": false, "clusterDomain": null, "evictionHard": { "a": "1" } }),
        }
    }

    #[test]
    fn the_configuration_is_the_tenants_with_what_is_this_machines() {
        let tenant = json!({ "clusterDNS": ["10.96.0.10"], "clusterDomain": "x", "authentication": { "anonymous": { "enabled": false } } });
        let config = kubelet_config(&tenant, &local(), &Kept::joining(&[]));
        assert_eq!(config["clusterDNS"][0], "10.96.0.10");
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(config["authentication"]["x509"]["clientCAFile"], AUTHORITY);
        assert_eq!(config["cgroupDriver"], "systemd");
        assert_eq!(
            (&config["failSwapOn"], &config["evictionHard"]["a"]),
            (&json!(false), &json!("1"))
        );
        assert!(config.get("clusterDomain").is_none());
        assert_eq!(
            config["registerWithTaints"],
            json!([{ "key": "stoker.dev/joining", "effect": "NoSchedule" }])
        );
        let chosen = json!({ "cgroupDriver": "cgroupfs" });
        let config = kubelet_config(&chosen, &local(), &Kept::default());
        assert_eq!(config["cgroupDriver"], "cgroupfs");
        assert!(config.get("registerWithTaints").is_none());
    }

    #[test]
    fn a_node_that_registers_again_has_what_its_token_gave() {
        let node = json!({
            "metadata": {
                "labels": {
                    "pool": "gpu", "kubernetes.io/os": "linux", "node-restriction.kubernetes.io/pool": "gpu",
                    "nvidia.com/gpu.count": "8",
                },
                "annotations": { "stoker.dev/node-agent-labels": "nvidia.com/gpu.count" },
            },
            "spec": { "taints": [
                { "key": "gpu", "value": "yes", "effect": "NoSchedule" },
                { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" },
            ] },
        });
        let kept = Kept::of(&serde_json::from_value(node).unwrap());
        let config = kubelet_config(&json!({}), &local(), &kept);
        assert_eq!(
            config["registerWithTaints"],
            json!([{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }])
        );
        assert_eq!(
            flags(&local(), &kept),
            "KUBELET_KUBEADM_ARGS=\"--hostname-override=w1 --node-labels=pool=gpu\"\n"
        );
    }

    #[test]
    fn what_another_tool_made_of_the_machine_is_known() {
        let ours = kubeconfig("a:6443", "w1").to_string();
        assert!(is_way_of(&ours, "a:6443", "w1"));
        assert!(!is_way_of(&ours, "b:6443", "w1") && !is_way_of(&ours, "a:6443", "w2"));
        let kubeadm = "clusters: [{ name: default-cluster, cluster: { server: 'https://a:6443' } }]\nusers: [{ name: default-auth }]\n";
        assert!(!is_way_of(kubeadm, "a:6443", "w1"));
        assert!(!is_way_of("", "a:6443", "w1") && !is_way_of("{", "a:6443", "w1"));
    }

    #[test]
    fn the_runtime_is_what_the_kubelet_was_told() {
        let local = Local {
            patch: json!({ ENDPOINT: "unix:///run/own.sock" }),
            ..local()
        };
        let config = kubelet_config(&json!({}), &local, &Kept::default()).to_string();
        assert_eq!(runtime_in(&config).as_deref(), Some("unix:///run/own.sock"));
        assert_eq!(runtime_in("kind: KubeletConfiguration\n"), None);
    }

    #[test]
    fn kubernetes_own_names_are_known() {
        for (key, own) in [
            ("kubernetes.io/os", true),
            ("a.k8s.io/b", true),
            ("mykubernetes.io/a", false),
            ("nvidia.com/gpu", false),
            ("pool", false),
        ] {
            assert_eq!(is_kubernetes(key), own, "{key}");
        }
    }

    #[test]
    fn a_node_registers_with_what_its_agent_does_once_and_not_again() {
        let flags = flags(&local(), &Kept::joining(&[LISTENER, TUNNEL]));
        let labels = "--node-labels=stoker.dev/listener=host,stoker.dev/tunnel=host";
        assert!(flags.contains(labels), "{flags}");
        let node = json!({ "metadata": { "labels": { LISTENER: OF_HOST, TUNNEL: OF_HOST, "pool": "gpu" } } });
        let kept = Kept::of(&serde_json::from_value(node).unwrap());
        assert_eq!(kept.labels, [("pool".to_owned(), "gpu".to_owned())]);
    }
}
