//! What people configure of the API server by fields of their own: files, flags and mounts for it.

use k8s_openapi::api::core::v1::{ConfigMapProjection, VolumeMount, VolumeProjection};
use stoker_api::tenant::Tenant;

use super::arguments::{Flag, VERSIONS};
use super::files::{item, path, projection};
use crate::{Names, audit, entry};

/// The kubeconfig for audit events among the API server's files.
const AUDIT_WEBHOOK: &str = "audit-webhook.conf";

/// Files beside keys and certificates.
pub(super) fn files(tenant: &Tenant, names: &Names) -> Vec<VolumeProjection> {
    let items = [
        entry::AUTHENTICATION,
        entry::AUTHORIZATION,
        entry::GUARD,
        entry::AUDIT_POLICY,
    ];
    let items = items.map(|entry| item(entry, entry)).into();
    let mut files = vec![VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names.control_plane_config.clone(),
            items: Some(items),
            optional: None,
        }),
        ..VolumeProjection::default()
    }];
    let webhook = &tenant.audit.webhook;
    files.extend(webhook.as_ref().map(|webhook| {
        let kubeconfig = item(entry::AUDIT_WEBHOOK, AUDIT_WEBHOOK);
        projection(&webhook.secret_name, vec![kubeconfig])
    }));
    files
}

/// Flags that follow from them.
pub(super) fn flags(tenant: &Tenant) -> Vec<Flag> {
    let mut flags = vec![("audit-policy-file", path(entry::AUDIT_POLICY))];
    flags.extend(audit::log_flags(&tenant.audit));
    if tenant.audit.webhook.is_some() {
        flags.push(("audit-webhook-config-file", path(AUDIT_WEBHOOK)));
    }
    flags
}

/// The versions of the API to serve beside the stable ones.
pub(super) fn switches(tenant: &Tenant) -> Option<Flag> {
    let asked = tenant.runtime_config.iter();
    let all: Vec<String> = asked.map(|(name, on)| format!("{name}={on}")).collect();
    (!all.is_empty()).then(|| (VERSIONS, all.join(",")))
}

/// Mounts beside that of the files.
pub(super) fn mounts(tenant: &Tenant) -> Option<VolumeMount> {
    audit::log_mount(&tenant.audit)
}
