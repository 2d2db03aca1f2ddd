//! The objects of a hand-written tenant.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::lab::Lab;

/// Where the Secret is mounted.
const PKI: &str = "/pki";
const NAME: &str = "control-plane";

/// The tenant's keys in the pool.
pub(super) fn prefix(namespace: &str) -> String {
    format!("/{namespace}/")
}

pub(super) fn secret(namespace: &str, files: &[(String, String)]) -> Value {
    let data: Map<_, _> = files
        .iter()
        .map(|(name, text)| (name.clone(), STANDARD.encode(text).into()))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": NAME, "namespace": namespace },
        "data": data,
    })
}

pub(super) fn service(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": NAME, "namespace": namespace },
        "spec": { "selector": { "app": NAME }, "ports": [{ "port": 6443 }] },
    })
}

pub(super) fn deployment(lab: &Lab, namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": namespace },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": NAME } },
            "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [
                        container(lab, "kube-apiserver", 6443, "/readyz", &api_server(lab, namespace)),
                        container(lab, "kube-controller-manager", 10257, "/healthz", &controller_manager()),
                        container(lab, "kube-scheduler", 10259, "/healthz", &scheduler()),
                    ],
                    "volumes": [{ "name": "pki", "secret": { "secretName": NAME } }],
                },
            },
        },
    })
}

fn container(lab: &Lab, name: &str, port: u16, health: &str, arguments: &[String]) -> Value {
    let version = lab.kubernetes().version;
    json!({
        "name": name,
        "image": format!("registry.k8s.io/{name}:{version}"),
        "imagePullPolicy": "IfNotPresent",
        "command": [name],
        "args": arguments,
        "readinessProbe": {
            "httpGet": { "path": health, "port": port, "scheme": "HTTPS" },
            "periodSeconds": 1,
            "failureThreshold": 3,
            "timeoutSeconds": 15,
        },
        "volumeMounts": [{ "name": "pki", "mountPath": PKI, "readOnly": true }],
    })
}

fn file(name: &str) -> String {
    format!("{PKI}/{name}")
}

fn api_server(lab: &Lab, namespace: &str) -> Vec<String> {
    let prefix = prefix(namespace);
    vec![
        format!("--etcd-servers=https://{}:2379", lab.addresses().pool()),
        format!("--etcd-prefix={}", prefix.trim_end_matches('/')),
        "--etcd-compaction-interval=0".to_owned(),
        format!("--etcd-cafile={}", file("etcd-ca.crt")),
        format!("--etcd-certfile={}", file("etcd-client.crt")),
        format!("--etcd-keyfile={}", file("etcd-client.key")),
        "--secure-port=6443".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            file("kubelet-client.crt")
        ),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
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

fn controller_manager() -> Vec<String> {
    let kubeconfig = file("kube-controller-manager");
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
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        "--cluster-cidr=10.244.0.0/16".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        "--controllers=*,bootstrapsigner,tokencleaner".to_owned(),
        "--leader-elect=true".to_owned(),
    ]
}

fn scheduler() -> Vec<String> {
    let kubeconfig = file("kube-scheduler");
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=true".to_owned(),
    ]
}
