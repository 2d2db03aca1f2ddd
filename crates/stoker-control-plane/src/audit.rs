//! Which requests API servers record, and where. They read the policy at their start only.

use k8s_openapi::api::core::v1::VolumeMount;
use serde::Serialize;
use stoker_api::v1alpha1::{
    Audit, AuditLevel, AuditLog, AuditPolicy, AuditResources, AuditRule, AuditStage,
};

/// Where a log that is not standard output goes.
const LOG_DIRECTORY: &str = "/var/log/kubernetes/audit";
/// In MB, as kube-apiserver's own; files and days as CIS 1.2.17 to 1.2.19 ask.
const MAX_SIZE: i32 = 100;
const MAX_BACKUPS: i32 = 10;
const MAX_AGE: i32 = 30;

/// The policy as YAML.
pub(crate) fn policy(audit: &Audit) -> String {
    let mut policy = audit.policy.clone();
    if policy.rules.is_empty() {
        policy.rules = rules();
        policy.omit_managed_fields.get_or_insert(true);
        if policy.omit_stages.is_empty() {
            policy.omit_stages = vec![AuditStage::RequestReceived];
        }
    }
    let policy = Policy {
        api_version: "audit.k8s.io/v1",
        kind: "Policy",
        content: policy,
    };
    // Strings in structs always serialize.
    serde_saphyr::to_string(&policy).unwrap_or_default()
}

/// Flags of the log, in which `-` is standard output. The bounds are given to that too: they hold for a file that
/// somebody names instead, and checkers look for them.
pub(crate) fn log_flags(audit: &Audit) -> Vec<(&'static str, String)> {
    let none = AuditLog::default();
    let Some(log) = audit
        .log
        .as_ref()
        .or(audit.webhook.is_none().then_some(&none))
    else {
        return Vec::new();
    };
    let path = match &log.volume {
        None => "-".to_owned(),
        Some(_) => format!("{LOG_DIRECTORY}/audit.log"),
    };
    let number = |asked: Option<i32>, own: i32| asked.unwrap_or(own).to_string();
    vec![
        ("audit-log-maxage", number(log.max_age, MAX_AGE)),
        ("audit-log-maxbackup", number(log.max_backups, MAX_BACKUPS)),
        ("audit-log-maxsize", number(log.max_size, MAX_SIZE)),
        ("audit-log-path", path),
    ]
}

/// The mount of the log's volume.
pub(crate) fn log_mount(audit: &Audit) -> Option<VolumeMount> {
    let volume = audit.log.as_ref()?.volume.as_ref()?;
    Some(VolumeMount {
        name: volume.clone(),
        mount_path: LOG_DIRECTORY.to_owned(),
        ..VolumeMount::default()
    })
}

/// Who changed or read what, without any content; not the unending work of the components themselves.
fn rules() -> Vec<AuditRule> {
    let reads = words(&["get", "list", "watch"]);
    vec![
        // By whom ever: what is read there lets in elsewhere.
        AuditRule {
            resources: vec![of("", &["secrets", "serviceaccounts/token"])],
            ..rule(AuditLevel::Metadata)
        },
        AuditRule {
            non_resource_urls: words(&[
                "/healthz*",
                "/livez*",
                "/readyz*",
                "/version",
                "/openapi/*",
            ]),
            ..rule(AuditLevel::None)
        },
        AuditRule {
            resources: vec![
                of("", &["events"]),
                of("events.k8s.io", &["events"]),
                of("coordination.k8s.io", &["leases"]),
            ],
            ..rule(AuditLevel::None)
        },
        AuditRule {
            user_groups: words(&["system:nodes"]),
            resources: vec![of("", &["nodes/status", "pods/status"])],
            ..rule(AuditLevel::None)
        },
        AuditRule {
            user_groups: words(&["system:nodes", "system:serviceaccounts:kube-system"]),
            verbs: reads.clone(),
            ..rule(AuditLevel::None)
        },
        AuditRule {
            users: words(&[
                "system:apiserver",
                "system:kube-controller-manager",
                "system:kube-scheduler",
            ]),
            verbs: reads,
            ..rule(AuditLevel::None)
        },
        rule(AuditLevel::Metadata),
    ]
}

fn rule(level: AuditLevel) -> AuditRule {
    AuditRule {
        level,
        users: Vec::new(),
        user_groups: Vec::new(),
        verbs: Vec::new(),
        resources: Vec::new(),
        namespaces: Vec::new(),
        non_resource_urls: Vec::new(),
        omit_stages: Vec::new(),
        omit_managed_fields: None,
    }
}

fn of(group: &str, resources: &[&str]) -> AuditResources {
    AuditResources {
        group: group.to_owned(),
        resources: words(resources),
        resource_names: Vec::new(),
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    content: AuditPolicy,
}
