//! Names of the entries in a tenant's Secrets and `ConfigMap`s: the contract's, which are kubeadm's
//! file names.

/// Certificates of the cluster authority: the one that signs, and during a change the other that is believed. In the
/// datastore Secret, of the pool's.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// How far a change of the cluster authority is, with the next one's key if there is one; absent while it is as made at birth.
pub const CA_RECORD: &str = "ca-record.json";
/// Key of the cluster authority.
pub const CA_KEY: &str = "ca.key";
/// The cluster authority's certificate once more, where Cluster API looks for it.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// The cluster authority's key once more, where Cluster API looks for it.
pub const TLS_KEY: &str = "tls.key";
/// How far a change of the front-proxy authority is, likewise.
pub const FRONT_PROXY_CA_RECORD: &str = "front-proxy-ca-record.json";
/// Certificates of the front-proxy authority, likewise.
pub const FRONT_PROXY_CA_CERTIFICATE: &str = "front-proxy-ca.crt";
/// Key of the front-proxy authority.
pub const FRONT_PROXY_CA_KEY: &str = "front-proxy-ca.key";
/// Public service-account keys.
pub const SERVICE_ACCOUNT_PUBLIC: &str = "sa.pub";
/// Private service-account key.
pub const SERVICE_ACCOUNT_PRIVATE: &str = "sa.key";
/// The API server's serving certificate.
pub const API_SERVER_CERTIFICATE: &str = "apiserver.crt";
/// Its key.
pub const API_SERVER_KEY: &str = "apiserver.key";
/// The API server's client certificate towards kubelets.
pub const KUBELET_CLIENT_CERTIFICATE: &str = "apiserver-kubelet-client.crt";
/// Its key.
pub const KUBELET_CLIENT_KEY: &str = "apiserver-kubelet-client.key";
/// The API server's client certificate towards aggregated API servers.
pub const FRONT_PROXY_CLIENT_CERTIFICATE: &str = "front-proxy-client.crt";
/// Its key.
pub const FRONT_PROXY_CLIENT_KEY: &str = "front-proxy-client.key";
/// Kubeconfig for people, dialing the tenant's endpoint; absent until the endpoint is known.
pub const ADMIN: &str = "admin.conf";
/// Kubeconfig for people, dialing the Service inside the management cluster.
pub const ADMIN_SERVICE: &str = "admin.svc";
/// kube-controller-manager's kubeconfig.
pub const CONTROLLER_MANAGER: &str = "controller-manager.conf";
/// Client certificate that [`CONTROLLER_MANAGER`] refers to.
pub const CONTROLLER_MANAGER_CERTIFICATE: &str = "controller-manager.crt";
/// Its key.
pub const CONTROLLER_MANAGER_KEY: &str = "controller-manager.key";
/// Certificate of the authority that signs, alone: kube-controller-manager takes no other beside it
/// (`pkg/controller/certificates/authority`).
pub const CA_SIGNER: &str = "ca-signer.crt";
/// kube-scheduler's kubeconfig.
pub const SCHEDULER: &str = "scheduler.conf";
/// Client certificate that [`SCHEDULER`] refers to.
pub const SCHEDULER_CERTIFICATE: &str = "scheduler.crt";
/// Its key.
pub const SCHEDULER_KEY: &str = "scheduler.key";
/// Addresses of the pool, `https://host:port` joined by commas.
pub const DATASTORE_CONNECTION: &str = "DB_CONNECTION_STRING";
/// The storage id; the tenant's keys live under `/<schema>/`.
pub const DATASTORE_SCHEMA: &str = "DB_SCHEMA";
/// The tenant's user in the pool.
pub const DATASTORE_USER: &str = "DB_USER";
/// The tenant's client certificate in the pool.
pub const DATASTORE_CERTIFICATE: &str = "server.crt";
/// Its key.
pub const DATASTORE_KEY: &str = "server.key";
/// `EncryptionConfiguration` of the API server.
pub const ENCRYPTION: &str = "encryption-config.yaml";
/// How far a change of it is, with the keys of both sides; absent while it is as made at birth.
pub const ENCRYPTION_RECORD: &str = "encryption-record.json";
/// `AuthenticationConfiguration` of the API server.
pub const AUTHENTICATION: &str = "authentication-config.yaml";
/// `AdmissionConfiguration` of the API server; only where it takes policies from files.
pub const ADMISSION: &str = "admission-config.yaml";
/// The policy there about webhooks that are given by URL.
pub const WEBHOOK_URLS: &str = "webhook-urls.yaml";
/// `AuthorizationConfiguration` of the API server.
pub const AUTHORIZATION: &str = "authorization-config.yaml";
/// Kubeconfig by which the API server asks the guard.
pub const GUARD: &str = "guard.conf";
/// Kubeconfig by which the API server tells the warden who asks; only of tenants that sleep when idle.
pub const ACTIVITY: &str = "activity.conf";
/// Audit policy of the API server.
pub const AUDIT_POLICY: &str = "audit-policy.yaml";
/// The kubeconfig in a Secret of people, by which audit events are sent.
pub const AUDIT_WEBHOOK: &str = "kubeconfig";
/// kubeadm's `ClusterConfiguration`.
pub const CLUSTER_CONFIGURATION: &str = "ClusterConfiguration";
/// The kubeconfig in a Secret that a `KubeconfigGenerator` asked for.
pub const GENERATED_KUBECONFIG: &str = "value";
/// What the API server sends through the tunnel: the contract's name.
pub const EGRESS_SELECTOR: &str = "egress-selector-configuration.yaml";
/// How many API servers there are, each with its end of the tunnel.
pub const SERVER_COUNT: &str = "server-count";
