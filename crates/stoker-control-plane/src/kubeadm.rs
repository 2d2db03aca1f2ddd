//! Configuration files that hold no secret: kubeadm's view of the tenant, who is authenticated how, and
//! who may do what.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use stoker_api::tenant::Tenant;
use stoker_api::version::KubernetesVersion;

use crate::authorization::{authorization, guard_kubeconfig};
use crate::metadata::metadata;
use crate::{Endpoint, Inputs, Names, entry};

/// First minor whose kube-apiserver reads `AuthenticationConfiguration` as `v1`; older ones read
/// `v1beta1` (`k8s.io/apiserver/pkg/apis/apiserver/v1/register.go` of 0.33 and 0.34).
const AUTHENTICATION_V1: u32 = 34;

/// The only paths that are answered without credentials: health, and what `kubeadm join` reads
/// before it trusts the cluster. The match is exact, and each still needs RBAC.
const ANONYMOUS_PATHS: [&str; 4] = [
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
    "/healthz",
    "/livez",
    "/readyz",
];

/// Both `ConfigMap`s, by name.
pub(crate) fn config_maps(inputs: &Inputs<'_>) -> Vec<ConfigMap> {
    let tenant = inputs.tenant;
    let names = Names::of(tenant);
    let endpoint = inputs.exposure.endpoint.as_ref();
    vec![
        config_map(
            tenant,
            &names.control_plane_config,
            "control-plane-config",
            vec![
                (entry::AUTHENTICATION, authentication(tenant.version)),
                (
                    entry::AUTHORIZATION,
                    authorization(tenant.write_permissions),
                ),
                (entry::GUARD, guard_kubeconfig()),
            ],
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
    ]
}

fn config_map(
    tenant: &Tenant,
    name: &str,
    component: &str,
    entries: Vec<(&str, String)>,
) -> ConfigMap {
    let entries = entries.into_iter();
    ConfigMap {
        metadata: metadata(tenant, name, component),
        data: Some(entries.map(|(key, text)| (key.to_owned(), text)).collect()),
        ..ConfigMap::default()
    }
}

fn authentication(version: KubernetesVersion) -> String {
    let group_version = if version.minor >= AUTHENTICATION_V1 {
        "v1"
    } else {
        "v1beta1"
    };
    let mut text = format!(
        "apiVersion: apiserver.config.k8s.io/{group_version}
kind: AuthenticationConfiguration
jwt: []
anonymous:
  enabled: true
  conditions:
"
    );
    for path in ANONYMOUS_PATHS {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  - path: {path}");
    }
    text
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
