//! What the objects of a tenant are called: the contract's names, which other tools read.

use stoker_api::tenant::Tenant;

/// Longest name of a tenant: a DNS-1035 label, since its Service has the same name.
const TENANT_NAME_LENGTH: usize = 63;
/// Longest name of a Secret or `ConfigMap`: a DNS-1123 subdomain.
const OBJECT_NAME_LENGTH: usize = 253;

const CA: &str = "-ca";
const FRONT_PROXY_CA: &str = "-front-proxy-ca-certificate";
const SERVICE_ACCOUNT_KEYS: &str = "-sa-certificate";
const API_SERVER_CERTIFICATE: &str = "-api-server-certificate";
const KUBELET_CLIENT: &str = "-api-server-kubelet-client-certificate";
const FRONT_PROXY_CLIENT: &str = "-front-proxy-client-certificate";
const ADMIN_KUBECONFIG: &str = "-admin-kubeconfig";
const CONTROLLER_MANAGER_KUBECONFIG: &str = "-controller-manager-kubeconfig";
const SCHEDULER_KUBECONFIG: &str = "-scheduler-kubeconfig";
const DATASTORE_CONFIG: &str = "-datastore-config";
const DATASTORE_CERTIFICATE: &str = "-datastore-certificate";
const ENCRYPTION: &str = "-encryption-config";
const KUBEADM_CONFIG: &str = "-kubeadmconfig";
const CONTROL_PLANE_CONFIG: &str = "-control-plane-config";
const EGRESS_SELECTOR: &str = "-konnectivity-egress-selector-configuration";
const STATIC_ADMISSION: &str = "-static-admission";

/// Every suffix of a Secret. None ends in another, so two tenants of one namespace never share a
/// Secret, whatever they are called.
const SECRETS: [&str; 12] = [
    CA,
    FRONT_PROXY_CA,
    SERVICE_ACCOUNT_KEYS,
    API_SERVER_CERTIFICATE,
    KUBELET_CLIENT,
    FRONT_PROXY_CLIENT,
    ADMIN_KUBECONFIG,
    CONTROLLER_MANAGER_KUBECONFIG,
    SCHEDULER_KUBECONFIG,
    DATASTORE_CONFIG,
    DATASTORE_CERTIFICATE,
    ENCRYPTION,
];

/// Every suffix of a `ConfigMap`; none ends in another.
const CONFIG_MAPS: [&str; 4] = [
    KUBEADM_CONFIG,
    CONTROL_PLANE_CONFIG,
    EGRESS_SELECTOR,
    STATIC_ADMISSION,
];

const _: () = assert!(longest(&SECRETS) + TENANT_NAME_LENGTH <= OBJECT_NAME_LENGTH);
const _: () = assert!(longest(&CONFIG_MAPS) + TENANT_NAME_LENGTH <= OBJECT_NAME_LENGTH);
const _: () = assert!(suffix_free(&SECRETS) && suffix_free(&CONFIG_MAPS));

const fn longest(suffixes: &[&str]) -> usize {
    let mut longest = 0;
    let mut i = 0;
    while i < suffixes.len() {
        if suffixes[i].len() > longest {
            longest = suffixes[i].len();
        }
        i += 1;
    }
    longest
}

const fn suffix_free(suffixes: &[&str]) -> bool {
    let mut i = 0;
    while i < suffixes.len() {
        let mut k = 0;
        while k < suffixes.len() {
            if i != k && ends_with(suffixes[i].as_bytes(), suffixes[k].as_bytes()) {
                return false;
            }
            k += 1;
        }
        i += 1;
    }
    true
}

const fn ends_with(text: &[u8], end: &[u8]) -> bool {
    if end.len() > text.len() {
        return false;
    }
    let mut i = 0;
    while i < end.len() {
        if text[text.len() - end.len() + i] != end[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Names of a tenant's objects, all in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Deployment, and its `PodDisruptionBudget` and `NetworkPolicy`: the tenant's own name.
    pub deployment: String,
    /// Service: the tenant's own name.
    pub service: String,
    /// `Ingress`: the tenant's own name.
    pub ingress: String,
    /// `TLSRoute`: the tenant's own name.
    pub tls_route: String,
    /// Secret: the cluster authority and its key.
    pub ca: String,
    /// Secret: the authority of front-proxy clients and its key.
    pub front_proxy_ca: String,
    /// Secret: the service-account key pair.
    pub service_account_keys: String,
    /// Secret: the API server's serving certificate.
    pub api_server_certificate: String,
    /// Secret: the API server's client certificate towards kubelets.
    pub kubelet_client: String,
    /// Secret: the API server's client certificate towards aggregated API servers.
    pub front_proxy_client: String,
    /// Secret: kubeconfigs for people.
    pub admin_kubeconfig: String,
    /// Secret: kube-controller-manager's kubeconfig and the certificate that it refers to.
    pub controller_manager_kubeconfig: String,
    /// Secret: kube-scheduler's kubeconfig and the certificate that it refers to.
    pub scheduler_kubeconfig: String,
    /// Secret: the tenant's identity in the pool.
    pub datastore_config: String,
    /// Secret: the tenant's client certificate in the pool.
    pub datastore_certificate: String,
    /// Secret: the keys that encrypt the tenant's Secrets at rest.
    pub encryption: String,
    /// `ConfigMap`: the kubeadm configuration that the tenant answers to.
    pub kubeadm_config: String,
    /// `ConfigMap`: configuration files of the API server that hold no secret.
    pub control_plane_config: String,
    /// `ConfigMap`: what the tunnel is told.
    pub egress_selector: String,
    /// `ConfigMap`: admission that the tenant cannot take away.
    pub static_admission: String,
}

impl Names {
    /// Secrets whose keys exist nowhere else and cannot be made anew without cutting off what relies on
    /// them.
    #[must_use]
    pub fn irreplaceable(&self) -> [&str; 4] {
        [
            &self.ca,
            &self.front_proxy_ca,
            &self.service_account_keys,
            &self.encryption,
        ]
    }

    /// The names of `tenant`'s objects.
    #[must_use]
    pub fn of(tenant: &Tenant) -> Self {
        Self::of_named(&tenant.name)
    }

    /// The names of the objects of the tenant called `tenant`, whatever its spec says.
    #[must_use]
    pub fn of_named(tenant: &str) -> Self {
        let name = |suffix: &str| format!("{tenant}{suffix}");
        Self {
            deployment: tenant.to_owned(),
            service: tenant.to_owned(),
            ingress: tenant.to_owned(),
            tls_route: tenant.to_owned(),
            ca: name(CA),
            front_proxy_ca: name(FRONT_PROXY_CA),
            service_account_keys: name(SERVICE_ACCOUNT_KEYS),
            api_server_certificate: name(API_SERVER_CERTIFICATE),
            kubelet_client: name(KUBELET_CLIENT),
            front_proxy_client: name(FRONT_PROXY_CLIENT),
            admin_kubeconfig: name(ADMIN_KUBECONFIG),
            controller_manager_kubeconfig: name(CONTROLLER_MANAGER_KUBECONFIG),
            scheduler_kubeconfig: name(SCHEDULER_KUBECONFIG),
            datastore_config: name(DATASTORE_CONFIG),
            datastore_certificate: name(DATASTORE_CERTIFICATE),
            encryption: name(ENCRYPTION),
            kubeadm_config: name(KUBEADM_CONFIG),
            control_plane_config: name(CONTROL_PLANE_CONFIG),
            egress_selector: name(EGRESS_SELECTOR),
            static_admission: name(STATIC_ADMISSION),
        }
    }
}

#[cfg(test)]
mod tests {
    use stoker_api::v1alpha1::RESERVED_NAMES;

    use super::SECRETS;

    /// Else a generator could be named so that its Secret is one of a tenant's own.
    #[test]
    fn no_generator_is_named_like_a_secret_of_ours() {
        for suffix in SECRETS {
            let name = suffix.trim_start_matches('-');
            assert!(RESERVED_NAMES.contains(&name), "{name} is not reserved");
        }
    }
}
