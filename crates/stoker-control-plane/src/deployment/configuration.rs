//! What people configure of the API server by fields of their own: files, flags and mounts for it.

use k8s_openapi::api::core::v1::{ConfigMapProjection, VolumeMount, VolumeProjection};
use stoker_api::tenant::Tenant;

use super::arguments::{Flag, VERSIONS};
use super::files::{self, item, path, projection};
use crate::authorization::sleeps_when_idle;
use crate::{Names, audit, entry, static_admission, tunnel};

/// The kubeconfig for audit events among the API server's files.
const AUDIT_WEBHOOK: &str = "audit-webhook.conf";

/// Files beside keys and certificates.
pub(super) fn files_of(tenant: &Tenant, names: &Names) -> Vec<VolumeProjection> {
    let mut entries = vec![
        entry::AUTHENTICATION,
        entry::AUTHORIZATION,
        entry::GUARD,
        entry::AUDIT_POLICY,
    ];
    entries.extend(sleeps_when_idle(tenant).then_some(entry::ACTIVITY));
    let items = entries
        .into_iter()
        .map(|entry| item(entry, entry))
        .collect();
    let mut files = vec![VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names.control_plane_config.clone(),
            items: Some(items),
            optional: None,
        }),
        ..VolumeProjection::default()
    }];
    files.extend(tunnel::asked(tenant).map(|_| tunnel_files(names, &[entry::EGRESS_SELECTOR])));
    files.extend(static_admission::asked(tenant).then(|| admission_files(names)));
    let webhook = &tenant.audit.webhook;
    files.extend(webhook.as_ref().map(|webhook| {
        let kubeconfig = item(entry::AUDIT_WEBHOOK, AUDIT_WEBHOOK);
        projection(&webhook.secret_name, vec![kubeconfig])
    }));
    files
}

/// What the tunnel is told.
pub(super) fn tunnel_files(names: &Names, entries: &[&str]) -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names.egress_selector.clone(),
            items: Some(entries.iter().map(|entry| item(entry, entry)).collect()),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

/// Policies have a directory of their own.
fn admission_files(names: &Names) -> VolumeProjection {
    let policy = format!("{}/{}", static_admission::DIRECTORY, entry::WEBHOOK_URLS);
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names.static_admission.clone(),
            items: Some(vec![
                item(entry::ADMISSION, entry::ADMISSION),
                item(entry::WEBHOOK_URLS, &policy),
            ]),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

/// Flags that follow from them.
pub(super) fn flags(tenant: &Tenant) -> Vec<Flag> {
    let mut flags = vec![("audit-policy-file", path(entry::AUDIT_POLICY))];
    flags.extend(audit::log_flags(&tenant.audit));
    if tenant.audit.webhook.is_some() {
        flags.push(("audit-webhook-config-file", path(AUDIT_WEBHOOK)));
    }
    if static_admission::asked(tenant) {
        flags.push(("admission-control-config-file", path(entry::ADMISSION)));
    }
    if tunnel::asked(tenant).is_some() {
        flags.push(("egress-selector-config-file", path(entry::EGRESS_SELECTOR)));
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
pub(super) fn mounts(tenant: &Tenant) -> Vec<VolumeMount> {
    let socket = tunnel::asked(tenant).map(|_| files::tunnel_mount());
    audit::log_mount(&tenant.audit)
        .into_iter()
        .chain(socket)
        .collect()
}
