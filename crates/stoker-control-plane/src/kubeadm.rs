//! Configuration files that hold no secret: kubeadm's view of the tenant, and what the API server is
//! told by files.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use stoker_api::tenant::Tenant;

use crate::audit;
use crate::authentication::authentication;
use crate::authorization::{
    activity_kubeconfig, authorization, guard_kubeconfig, sleeps_when_idle,
};
use crate::metadata::metadata;
use crate::{Endpoint, Inputs, Names, entry, tunnel};

/// The `ConfigMap`s, by name.
pub(crate) fn config_maps(inputs: &Inputs<'_>) -> Vec<ConfigMap> {
    let tenant = inputs.tenant;
    let names = Names::of(tenant);
    let endpoint = inputs.exposure.endpoint.as_ref();
    let mut maps = vec![
        config_map(
            tenant,
            &names.control_plane_config,
            "control-plane-config",
            configuration(tenant),
        ),
        config_map(
            tenant,
            &names.kubeadm_config,
            "kubeadmconfig",
            vec![(
                entry::CLUSTER_CONFIGURATION,
                cluster_configuration(tenant, endpoint),
            )],
        ),
    ];
    maps.extend(tunnel::asked(tenant).map(|_| {
        let files = vec![
            (entry::EGRESS_SELECTOR, tunnel::egress_selector()),
            (entry::SERVER_COUNT, tenant.replicas.to_string()),
        ];
        config_map(tenant, &names.egress_selector, "konnectivity", files)
    }));
    maps
}

/// The API server's own files.
fn configuration(tenant: &Tenant) -> Vec<(&'static str, String)> {
    let mut files = vec![
        (entry::AUTHENTICATION, authentication(tenant)),
        (entry::AUTHORIZATION, authorization(tenant)),
        (entry::GUARD, guard_kubeconfig()),
        (entry::AUDIT_POLICY, audit::policy(&tenant.audit)),
    ];
    files.extend(sleeps_when_idle(tenant).then(|| (entry::ACTIVITY, activity_kubeconfig())));
    files
}

fn config_map(
    tenant: &Tenant,
    name: &str,
    component: &str,
    files: Vec<(&str, String)>,
) -> ConfigMap {
    let entries = files.into_iter().map(|(key, text)| (key.to_owned(), text));
    ConfigMap {
        metadata: metadata(tenant, name, component),
        data: Some(entries.collect()),
        ..ConfigMap::default()
    }
}

/// kubeadm's `ClusterConfiguration` (`kubeadm.k8s.io/v1beta4`) of `tenant`, as YAML: what
/// `kubeadm join` reads from `kube-system/kubeadm-config`.
///
/// It says nothing of etcd, which is none of the tenant's business.
#[must_use]
pub fn cluster_configuration(tenant: &Tenant, endpoint: Option<&Endpoint>) -> String {
    let configuration = ClusterConfiguration {
        api_version: "kubeadm.k8s.io/v1beta4",
        kind: "ClusterConfiguration",
        cluster_name: &tenant.name,
        control_plane_endpoint: endpoint.map(ToString::to_string),
        kubernetes_version: tenant.version.to_string(),
        certificates_dir: "/etc/kubernetes/pki",
        image_repository: "registry.k8s.io",
        networking: Networking {
            dns_domain: &tenant.network.cluster_domain,
            pod_subnet: tenant.network.pod_cidr_flag(),
            service_subnet: tenant.network.service_cidr_flag(),
        },
    };
    // Strings in structs always serialize.
    serde_saphyr::to_string(&configuration).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterConfiguration<'a> {
    api_version: &'static str,
    kind: &'static str,
    cluster_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane_endpoint: Option<String>,
    kubernetes_version: String,
    certificates_dir: &'static str,
    image_repository: &'static str,
    networking: Networking<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Networking<'a> {
    dns_domain: &'a str,
    pod_subnet: String,
    service_subnet: String,
}
