//! The node of the management cluster: kubelet, kube-proxy, pod network and the lab's network daemon.

use anyhow::Result;
use serde_json::{Value, json};

use super::HOST;
use crate::containerd::SOCKET;
use crate::host::Host;
use crate::host::supervisor::Program;
use crate::lab::Lab;
use crate::pod_network;

pub(super) fn start(lab: &Lab, host: &Host) -> Result<()> {
    let pki = lab.pki_file();
    pod_network::configure(host, &lab.addresses().pods(), false)?;
    let group = lab.control_group(HOST);
    host.write(
        "/etc/kubernetes/kubelet.json",
        &kubelet(lab, &group).to_string(),
    )?;
    host.write(
        "/etc/kubernetes/kube-proxy.json",
        &kube_proxy(lab).to_string(),
    )?;
    let program = |name: &str, arguments: &[String]| Program {
        name: name.to_owned(),
        command: std::iter::once(name.to_owned())
            .chain(arguments.iter().cloned())
            .collect(),
        ..Program::default()
    };
    host.keep_running(&program(
        "kubelet",
        &[
            "--config=/etc/kubernetes/kubelet.json".to_owned(),
            format!("--kubeconfig={}", pki("kubelet.kubeconfig")),
            format!("--node-ip={}", join(lab.addresses().both(host.address()))),
            format!("--hostname-override={HOST}"),
        ],
    ))?;
    host.keep_running(&program(
        "kube-proxy",
        &[
            "--config=/etc/kubernetes/kube-proxy.json".to_owned(),
            format!("--hostname-override={HOST}"),
        ],
    ))?;
    let (first, last) = lab.addresses().load_balancers();
    let both = |address| lab.addresses().both(address).into_iter();
    let ranges = both(first).zip(both(last));
    let ranges = join(ranges.map(|(first, last)| format!("{first}-{last}")));
    let daemon = vec![
        lab.program().display().to_string(),
        "network".to_owned(),
        format!("--kubeconfig={}", pki("admin.kubeconfig")),
        format!("--node-name={HOST}"),
        format!("--load-balancer-range={ranges}"),
    ];
    host.keep_running(&Program {
        name: "network".into(),
        command: daemon,
        ..Program::default()
    })
}

fn join(parts: impl IntoIterator<Item = impl ToString>) -> String {
    let parts: Vec<_> = parts.into_iter().map(|part| part.to_string()).collect();
    parts.join(",")
}

fn kubelet(lab: &Lab, control_group: &str) -> Value {
    let pki = lab.pki_file();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki("kubelet-server.crt"),
        "tlsPrivateKeyFile": pki("kubelet-server.key"),
        "clusterDNS": [lab.addresses().dns_service()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": SOCKET,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{control_group}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "maxPods": 250,
        "serializeImagePulls": false,
        // Images come from the lab; one pulled once would otherwise be pulled again for other pods.
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        // A developer's full disk must not evict control planes; only an almost full one does.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}

fn kube_proxy(lab: &Lab) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": lab.pki_file()("kube-proxy.kubeconfig") },
        "clusterCIDR": join(lab.addresses().pods()),
        // The limit belongs to the whole machine and cannot be set from a network namespace.
        "conntrack": { "maxPerCore": 0, "min": 0 },
    })
}
