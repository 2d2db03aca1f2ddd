//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler as programs of the management host.

use std::path::Path;

use anyhow::Result;

use crate::etcd::EtcdPlan;
use crate::host::Host;
use crate::host::supervisor::Program;
use crate::lab::Lab;

pub(super) fn start(lab: &Lab, host: &Host, etcd_binaries: &Path) -> Result<()> {
    let pki = lab.paths().management_pki();
    let plan = EtcdPlan {
        binaries: etcd_binaries,
        pki: &pki,
        authority: "etcd-ca",
        server: "etcd",
        sync: lab.options().sync_management_etcd,
    };
    host.keep_running(&plan.program(host.address()))?;
    host.keep_running(&component("kube-apiserver", api_server(lab)))?;
    host.keep_running(&component(
        "kube-controller-manager",
        controller_manager(lab),
    ))?;
    host.keep_running(&component("kube-scheduler", scheduler(lab)))
}

fn component(name: &str, arguments: Vec<String>) -> Program {
    let command = std::iter::once(name.to_owned()).chain(arguments).collect();
    Program {
        name: name.to_owned(),
        command,
        ..Program::default()
    }
}

fn api_server(lab: &Lab) -> Vec<String> {
    let file = lab.pki_file();
    let addresses = lab.addresses();
    vec![
        format!("--advertise-address={}", addresses.management()),
        "--secure-port=6443".to_owned(),
        format!("--etcd-servers=https://{}:2379", addresses.management()),
        format!("--etcd-cafile={}", file("etcd-ca.crt")),
        format!("--etcd-certfile={}", file("etcd-client.crt")),
        format!("--etcd-keyfile={}", file("etcd-client.key")),
        format!("--tls-cert-file={}", file("kube-apiserver.crt")),
        format!("--tls-private-key-file={}", file("kube-apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            file("kube-apiserver-kubelet-client.crt")
        ),
        format!(
            "--kubelet-client-key={}",
            file("kube-apiserver-kubelet-client.key")
        ),
        // Host names of the lab resolve inside its hosts only.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!(
            "--service-cluster-ip-range={}",
            addresses.services().join(",")
        ),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--enable-bootstrap-token-auth=true".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!(
            "--requestheader-client-ca-file={}",
            file("front-proxy-ca.crt")
        ),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!(
            "--proxy-client-cert-file={}",
            file("front-proxy-client.crt")
        ),
        format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
    ]
}

fn controller_manager(lab: &Lab) -> Vec<String> {
    let file = lab.pki_file();
    let kubeconfig = file("controller-manager.kubeconfig");
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--client-ca-file={}", file("ca.crt")),
        format!(
            "--requestheader-client-ca-file={}",
            file("front-proxy-ca.crt")
        ),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("sa.key")),
        format!(
            "--service-cluster-ip-range={}",
            lab.addresses().services().join(",")
        ),
        "--use-service-account-credentials=true".to_owned(),
        "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
        // One of each: an election would only make the start slower.
        "--leader-elect=false".to_owned(),
    ]
}

fn scheduler(lab: &Lab) -> Vec<String> {
    let kubeconfig = lab.pki_file()("scheduler.kubeconfig");
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
    ]
}
