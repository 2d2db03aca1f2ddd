//! Every flag of the three components.

use stoker_api::arguments::Component;
use stoker_api::tenant::{API_SERVER_PORT, Tenant};
use stoker_api::v1alpha1::NodeAddressType;

use super::SHUTDOWN_DELAY_SECONDS;
use super::arguments::{Flag, GATES, with_asked};
use super::files::{POOL_CA, POOL_CERTIFICATE, POOL_KEY, path};
use super::{configuration, size};
use crate::issuers::{issuers, keys_uri};
use crate::{Inputs, entry};

/// Flags of kube-apiserver.
pub(super) fn api_server(inputs: &Inputs<'_>) -> Vec<String> {
    let mut flags = serving(inputs);
    flags.extend(storage(inputs));
    flags.extend(identity(inputs));
    flags.extend(configuration::flags(inputs.tenant));
    flags.extend(configuration::switches(inputs.tenant));
    flags.extend(size::flags(inputs.tenant.size, Component::ApiServer));
    with_asked(Component::ApiServer, &inputs.tenant.deployment, flags)
}

/// First minor in which [`PEER_PROXY`] is on by default.
const PEER_PROXY_ON: u32 = 36;
/// A gate under which every API server writes its address to the pool again and again, so that API
/// servers of different releases can serve for each other. It takes a peer authority, which we do
/// not configure, and would show the tenant addresses of management pods
/// (`k8s.io/kubernetes/pkg/controlplane/apiserver/server.go`, `peer-endpoint-reconciler-controller`).
const PEER_PROXY: &str = "UnknownVersionInteroperabilityProxy";

/// Suites of TLS 1.2 with forward secrecy and authenticated encryption (CIS 1.2.29); those of TLS 1.3
/// are all strong, and always on.
const STRONG_SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// How it is reached and how it ends.
fn serving(inputs: &Inputs<'_>) -> Vec<Flag> {
    let tenant = inputs.tenant;
    let preferred: Vec<_> = tenant
        .kubelet
        .preferred_address_types
        .iter()
        .map(|kind| address_type(*kind))
        .collect();
    let mut flags = vec![
        ("allow-privileged", "true".to_owned()),
        // The operator owns the tenant's `kubernetes` endpoints, which name the tenant's endpoint
        // and not pods of the management cluster; and an address change restarts nothing.
        ("endpoint-reconciler-type", "none".to_owned()),
        (
            "kubelet-client-certificate",
            path(entry::KUBELET_CLIENT_CERTIFICATE),
        ),
        ("kubelet-client-key", path(entry::KUBELET_CLIENT_KEY)),
        ("kubelet-preferred-address-types", preferred.join(",")),
        ("profiling", "false".to_owned()),
        (
            "proxy-client-cert-file",
            path(entry::FRONT_PROXY_CLIENT_CERTIFICATE),
        ),
        ("proxy-client-key-file", path(entry::FRONT_PROXY_CLIENT_KEY)),
        ("secure-port", API_SERVER_PORT.to_string()),
        (
            "service-cluster-ip-range",
            tenant.network.service_cidr_flag(),
        ),
        // Keeps serving while load balancers move on, then asks clients to come again elsewhere
        // until what is under way has ended.
        (
            "shutdown-delay-duration",
            format!("{SHUTDOWN_DELAY_SECONDS}s"),
        ),
        ("shutdown-send-retry-after", "true".to_owned()),
        ("tls-cert-file", path(entry::API_SERVER_CERTIFICATE)),
        ("tls-cipher-suites", STRONG_SUITES.join(",")),
        ("tls-private-key-file", path(entry::API_SERVER_KEY)),
    ];
    if inputs.kubelets_verified {
        let authority = path(entry::CA_CERTIFICATE);
        flags.push(("kubelet-certificate-authority", authority));
    }
    // Else it is the pod's address, which the tenant could read at `/api`.
    let address = tenant.network.kubernetes_service_ips().first().copied();
    flags.extend(address.map(|address| ("advertise-address", address.to_string())));
    flags.extend(gates(tenant, tenant.version.minor >= PEER_PROXY_ON));
    flags
}

/// The feature gates of a component.
fn gates(tenant: &Tenant, without_peer_proxy: bool) -> Option<Flag> {
    let ours = without_peer_proxy.then(|| format!("{PEER_PROXY}=false"));
    let asked = tenant.feature_gates.iter();
    let all: Vec<String> = ours
        .into_iter()
        .chain(asked.map(|(name, on)| format!("{name}={on}")))
        .collect();
    (!all.is_empty()).then(|| (GATES, all.join(",")))
}

fn address_type(kind: NodeAddressType) -> &'static str {
    match kind {
        NodeAddressType::Hostname => "Hostname",
        NodeAddressType::InternalIP => "InternalIP",
        NodeAddressType::ExternalIP => "ExternalIP",
        NodeAddressType::InternalDNS => "InternalDNS",
        NodeAddressType::ExternalDNS => "ExternalDNS",
    }
}

/// The pool.
fn storage(inputs: &Inputs<'_>) -> Vec<Flag> {
    vec![
        ("encryption-provider-config", path(entry::ENCRYPTION)),
        (
            "encryption-provider-config-automatic-reload",
            "true".to_owned(),
        ),
        ("etcd-cafile", path(POOL_CA)),
        ("etcd-certfile", path(POOL_CERTIFICATE)),
        // Compaction belongs to the operator: `compact_rev_key` is one key for the whole pool.
        ("etcd-compaction-interval", "0".to_owned()),
        // Else every tenant's metrics show the size of the pool that they share.
        ("etcd-db-metric-poll-interval", "0".to_owned()),
        ("etcd-keyfile", path(POOL_KEY)),
        // The API server joins prefix and resource with `/`, so every key begins with `/<id>/`
        // (`k8s.io/apiserver/pkg/storage/etcd3/store.go`, `pathPrefix`).
        ("etcd-prefix", format!("/{}", inputs.storage.id)),
        ("etcd-servers", inputs.storage.servers()),
    ]
}

/// Who is authenticated how, and who may do what.
fn identity(inputs: &Inputs<'_>) -> Vec<Flag> {
    let tenant = inputs.tenant;
    let issuers = issuers(tenant, inputs.exposure.stable_name.as_deref());
    let mut flags = vec![
        ("authentication-config", path(entry::AUTHENTICATION)),
        ("authorization-config", path(entry::AUTHORIZATION)),
        ("client-ca-file", path(entry::CA_CERTIFICATE)),
        ("enable-admission-plugins", admission_plugins(tenant)),
        ("enable-bootstrap-token-auth", "true".to_owned()),
        (
            "requestheader-allowed-names",
            "front-proxy-client".to_owned(),
        ),
        (
            "requestheader-client-ca-file",
            path(entry::FRONT_PROXY_CA_CERTIFICATE),
        ),
        (
            "requestheader-extra-headers-prefix",
            "X-Remote-Extra-".to_owned(),
        ),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("service-account-jwks-uri", keys_uri(tenant, &issuers)),
        (
            "service-account-key-file",
            path(entry::SERVICE_ACCOUNT_PUBLIC),
        ),
        (
            "service-account-signing-key-file",
            path(entry::SERVICE_ACCOUNT_PRIVATE),
        ),
    ];
    let accepted = issuers.into_iter();
    flags.extend(accepted.map(|issuer| ("service-account-issuer", issuer)));
    flags
}

/// `NodeRestriction` and those asked for, each once.
fn admission_plugins(tenant: &Tenant) -> String {
    let mut plugins = vec!["NodeRestriction"];
    for name in &tenant.admission_controllers {
        if !plugins.contains(&name.as_str()) {
            plugins.push(name);
        }
    }
    plugins.join(",")
}

/// Flags of kube-controller-manager.
///
/// It elects a leader even with one replica, because a rolling update has two pods for a while.
/// `client-ca-file` and `requestheader-client-ca-file` spare it a look into the API server at its
/// start, which is not up yet.
pub(super) fn controller_manager(tenant: &Tenant) -> Vec<String> {
    let kubeconfig = path(entry::CONTROLLER_MANAGER);
    let mut ours = vec![
        ("allocate-node-cidrs", "true".to_owned()),
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig.clone()),
        ("client-ca-file", path(entry::CA_CERTIFICATE)),
        ("cluster-cidr", tenant.network.pod_cidr_flag()),
        ("cluster-name", tenant.name.clone()),
        ("cluster-signing-cert-file", path(entry::CA_SIGNER)),
        ("cluster-signing-key-file", path(entry::CA_KEY)),
        ("controllers", "*,bootstrapsigner,tokencleaner".to_owned()),
        ("kubeconfig", kubeconfig),
        ("leader-elect", "true".to_owned()),
        ("profiling", "false".to_owned()),
        (
            "requestheader-client-ca-file",
            path(entry::FRONT_PROXY_CA_CERTIFICATE),
        ),
        ("root-ca-file", path(entry::CA_CERTIFICATE)),
        (
            "service-account-private-key-file",
            path(entry::SERVICE_ACCOUNT_PRIVATE),
        ),
        (
            "service-cluster-ip-range",
            tenant.network.service_cidr_flag(),
        ),
        ("tls-cipher-suites", STRONG_SUITES.join(",")),
        ("use-service-account-credentials", "true".to_owned()),
    ];
    ours.extend(gates(tenant, false));
    ours.extend(size::flags(tenant.size, Component::ControllerManager));
    with_asked(Component::ControllerManager, &tenant.deployment, ours)
}

/// Flags of kube-scheduler. As for kube-controller-manager, it needs no look into the API
/// server to know who may read its metrics; kube-scheduler would go on without knowing.
pub(super) fn scheduler(tenant: &Tenant) -> Vec<String> {
    let kubeconfig = path(entry::SCHEDULER);
    let mut ours = vec![
        ("authentication-kubeconfig", kubeconfig.clone()),
        ("authorization-kubeconfig", kubeconfig.clone()),
        ("client-ca-file", path(entry::CA_CERTIFICATE)),
        ("kubeconfig", kubeconfig),
        ("leader-elect", "true".to_owned()),
        ("profiling", "false".to_owned()),
        (
            "requestheader-client-ca-file",
            path(entry::FRONT_PROXY_CA_CERTIFICATE),
        ),
        ("tls-cipher-suites", STRONG_SUITES.join(",")),
    ];
    ours.extend(gates(tenant, false));
    ours.extend(size::flags(tenant.size, Component::Scheduler));
    with_asked(Component::Scheduler, &tenant.deployment, ours)
}
