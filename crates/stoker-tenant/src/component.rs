//! Values of the label `app.kubernetes.io/component` on the objects: which part they belong to.

/// `kubeadm-config` and who may read it.
pub const KUBEADM_CONFIG: &str = "kubeadm-config";
/// `kubelet-config` and who may read it.
pub const KUBELET_CONFIG: &str = "kubelet-config";
/// What a node may do with a bootstrap token.
pub const BOOTSTRAP_TOKEN: &str = "bootstrap-token";
/// What a `JoinToken` needs.
pub const JOIN_TOKEN: &str = "join-token";
/// `cluster-info` and who may read it.
pub const CLUSTER_INFO: &str = "cluster-info";
/// Rights of administrators.
pub const CLUSTER_ADMINS: &str = "cluster-admins";
/// Endpoints of the `kubernetes` Service.
pub const API_SERVER: &str = "kube-apiserver";
/// Whom the API server serves first.
pub const API_PRIORITY: &str = "api-priority";
/// The cluster DNS add-on.
pub const CORE_DNS: &str = "coredns";
/// The Service proxy add-on.
pub const KUBE_PROXY: &str = "kube-proxy";
/// Agents of the tunnel.
pub const KONNECTIVITY: &str = "konnectivity";
/// The API server at an address of every node.
pub const NODE_LISTENER: &str = "node-listener";
