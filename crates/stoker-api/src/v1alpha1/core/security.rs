//! Security contexts within the restricted profile.

use k8s_openapi::api::core::v1 as core;
use kube::core::Rule;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::{Cut as _, finished, upstream};
use crate::restricted::{CAPABILITY, PROFILE_TYPES, SELINUX_TYPES, SYSCTLS};

/// Of a container.
pub(super) fn container(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = upstream::<core::SecurityContext>(generator);
    restrict(&mut schema);
    finished(schema)
}

/// Cuts the schema of a container's security context.
pub(super) fn restrict(schema: &mut Value) {
    schema.keep(
        &[],
        &[
            "allowPrivilegeEscalation",
            "appArmorProfile",
            "capabilities",
            "privileged",
            "procMount",
            "readOnlyRootFilesystem",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seLinuxOptions",
            "seccompProfile",
        ],
    );
    profiles(schema);
    schema.set(&["procMount"], "enum", json!(["Default"]));
    for list in ["add", "drop"] {
        schema.set(&["capabilities", list], "maxItems", json!(64));
        schema.set(&["capabilities", list, "[]"], "maxLength", json!(64));
    }
    schema.rule(
        &[],
        Rule::new(
            "!(has(self.privileged) && self.privileged) && \
             !(has(self.allowPrivilegeEscalation) && self.allowPrivilegeEscalation)",
        )
        .message(
            "securityContext: control-plane pods keep to the restricted profile, so privileged \
             and allowPrivilegeEscalation cannot be true",
        ),
    );
    schema.rule(
        &["capabilities"],
        Rule::new(format!(
            "!has(self.add) || self.add.all(c, c == '{CAPABILITY}')"
        ))
        .message(
            "capabilities: control-plane pods keep to the restricted profile, which allows \
             NET_BIND_SERVICE alone to be added",
        ),
    );
}

/// Of the pod.
pub(super) fn pod(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = upstream::<core::PodSecurityContext>(generator);
    schema.keep(
        &[],
        &[
            "appArmorProfile",
            "fsGroup",
            "fsGroupChangePolicy",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seLinuxChangePolicy",
            "seLinuxOptions",
            "seccompProfile",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "sysctls",
        ],
    );
    profiles(&mut schema);
    schema.set(&["sysctls", "[]", "name"], "enum", json!(SYSCTLS));
    finished(schema)
}

/// What containers and pods have alike.
fn profiles(schema: &mut Value) {
    for profile in ["appArmorProfile", "seccompProfile"] {
        schema.set(&[profile, "type"], "enum", json!(PROFILE_TYPES));
    }
    schema.keep(&["seLinuxOptions"], &["level", "type"]);
    schema.set(&["seLinuxOptions", "type"], "enum", json!(SELINUX_TYPES));
    schema.rule(
        &[],
        Rule::new(
            "!(has(self.runAsNonRoot) && !self.runAsNonRoot) && \
             !(has(self.runAsUser) && self.runAsUser == 0)",
        )
        .message("securityContext: nothing in a control-plane pod runs as root"),
    );
}
