//! Certificates and kubeconfigs of the management cluster, all with keys made here.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use stoker_pki::ServiceAccountKey;

use super::HOST;
use crate::credentials::{
    authority, client, kubeconfig_text, server, write_authority, write_leaf, write_private,
    write_service_account_key,
};
use crate::lab::Lab;

/// Components with a kubeconfig, their user and their group.
const USERS: [(&str, &str, Option<&str>); 4] = [
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    (
        "kube-proxy",
        "system:kube-proxy",
        Some("system:node-proxier"),
    ),
    ("kubelet", "system:node:management", Some("system:nodes")),
];

pub(super) fn issue(lab: &Lab) -> Result<()> {
    let directory = lab.paths().management_pki();
    std::fs::create_dir_all(&directory).context("making the certificate directory")?;
    let address = IpAddr::V4(lab.addresses().management());
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let service = IpAddr::V4(lab.addresses().kubernetes_service());
    let ca = authority("stoker-lab-management")?;
    write_authority(&directory, "ca", &ca)?;

    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let names = [
        &names[..],
        &["kubernetes.default.svc.cluster.local", "localhost", HOST],
    ]
    .concat();
    let api_server = server(&ca, "kube-apiserver", &names, &[address, local, service])?;
    write_leaf(&directory, "kube-apiserver", &api_server)?;
    let kubelet_client = client(
        &ca,
        "kube-apiserver-kubelet-client",
        Some("kubeadm:cluster-admins"),
    )?;
    write_leaf(&directory, "kube-apiserver-kubelet-client", &kubelet_client)?;
    write_leaf(
        &directory,
        "kubelet-server",
        &server(&ca, HOST, &[HOST], &[address])?,
    )?;

    let etcd = authority("stoker-lab-management-etcd")?;
    write_authority(&directory, "etcd-ca", &etcd)?;
    write_leaf(
        &directory,
        "etcd",
        &server(&etcd, "etcd", &[HOST], &[address, local])?,
    )?;
    write_leaf(
        &directory,
        "etcd-client",
        &client(&etcd, "kube-apiserver", None)?,
    )?;

    let front_proxy = authority("stoker-lab-management-front-proxy")?;
    write_authority(&directory, "front-proxy-ca", &front_proxy)?;
    write_leaf(
        &directory,
        "front-proxy-client",
        &client(&front_proxy, "front-proxy-client", None)?,
    )?;
    let key = ServiceAccountKey::generate().context("making the service-account key")?;
    write_service_account_key(&directory, &key)?;

    let url = lab.management_url();
    for (file, user, group) in USERS {
        let text = kubeconfig_text(HOST, &url, &ca, user, client(&ca, user, group)?);
        write_private(&directory.join(format!("{file}.kubeconfig")), &text)?;
    }
    let admin = client(&ca, "stoker-lab-admin", Some("system:masters"))?;
    let admin = kubeconfig_text(lab.paths().lab(), &url, &ca, "admin", admin);
    write_private(&directory.join("admin.kubeconfig"), &admin)?;
    let people = lab.paths().people();
    std::fs::create_dir_all(&people).with_context(|| format!("making {}", people.display()))?;
    write_private(&lab.paths().kubeconfig(HOST), &admin)?;
    std::fs::write(directory.join("complete"), "").context("finishing the certificates")
}
