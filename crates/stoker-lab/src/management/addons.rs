//! Cluster DNS of the management cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};

use crate::images::coredns_reference;
use crate::lab::Lab;

const COREFILE: &str = ".:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    cache 30
    reload
    loadbalance
}
";

pub(super) fn objects(lab: &Lab) -> Value {
    let metadata = json!({ "name": "coredns", "namespace": "kube-system" });
    let role = |kind: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "system:coredns" });
    let watched = ["endpoints", "services", "pods", "namespaces"];
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "Corefile": COREFILE } },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": watched, "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "system:coredns" },
            "roleRef": role("ClusterRole"),
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        },
        // As kubeadm does it: the API server may fetch logs and exec through kubelets.
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "kubeadm:apiserver-kubelet-client" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "system:kubelet-api-admin",
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                "name": "kube-apiserver-kubelet-client",
            }],
        },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
            "spec": {
                "clusterIP": lab.addresses().dns_service(),
                "selector": { "k8s-app": "kube-dns" },
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP" },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                ],
            },
        },
        deployment(lab, &metadata),
    ]})
}

fn deployment(lab: &Lab, metadata: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "k8s-app": "kube-dns" } },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-dns" } },
                "spec": {
                    "serviceAccountName": "coredns",
                    "priorityClassName": "system-cluster-critical",
                    "dnsPolicy": "Default",
                    "containers": [{
                        "name": "coredns",
                        "image": coredns_reference(lab.kubernetes()),
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "ports": [
                            { "containerPort": 53, "protocol": "UDP" },
                            { "containerPort": 53, "protocol": "TCP" },
                        ],
                        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 2 },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
                        },
                        "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns" }],
                    }],
                    "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
                },
            },
        },
    })
}

pub(super) async fn wait_ready(client: &kube::Client) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), "kube-system");
    let begun = Instant::now();
    loop {
        let coredns = deployments
            .get("coredns")
            .await
            .context("reading the DNS Deployment")?;
        let status = coredns.status.unwrap_or_default();
        if status.ready_replicas.unwrap_or_default() > 0 {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_mins(2),
            "the management cluster's DNS is not ready; see `kubectl -n kube-system describe pods`"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
