//! Security contexts: what is asked for, as far as it keeps to the restricted profile. Admission
//! refuses the rest; here it has no effect.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext,
};
use stoker_api::restricted::{CAPABILITY, PROFILE_TYPES, SELINUX_TYPES, SYSCTLS};
use stoker_api::v1alpha1::PodSecurity;

/// User and group of all containers: not root, and the number by which distroless images call
/// `nonroot`.
const USER: i64 = 65532;

/// Of a container.
pub(super) fn container(asked: Option<&SecurityContext>) -> SecurityContext {
    let asked = asked.cloned().unwrap_or_default();
    let added = asked.capabilities.and_then(|asked| asked.add);
    let binds = added
        .iter()
        .flatten()
        .any(|capability| capability == CAPABILITY);
    SecurityContext {
        allow_privilege_escalation: Some(false),
        app_armor_profile: asked.app_armor_profile.filter(is_app_armor),
        capabilities: Some(Capabilities {
            add: binds.then(|| vec![CAPABILITY.to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        read_only_root_filesystem: asked.read_only_root_filesystem,
        run_as_group: asked.run_as_group,
        run_as_user: asked.run_as_user.filter(|user| *user != 0),
        se_linux_options: asked.se_linux_options.and_then(se_linux),
        seccomp_profile: asked.seccomp_profile.filter(is_seccomp),
        ..SecurityContext::default()
    }
}

/// Of the pod. The group of files makes certificates readable, whatever the user is.
pub(super) fn pod(asked: Option<&PodSecurity>) -> PodSecurityContext {
    let asked = asked.map(|asked| asked.0.clone()).unwrap_or_default();
    let sysctls = asked.sysctls.map(|list| {
        let safe = list
            .into_iter()
            .filter(|sysctl| SYSCTLS.contains(&sysctl.name.as_str()));
        safe.collect()
    });
    PodSecurityContext {
        app_armor_profile: asked.app_armor_profile.filter(is_app_armor),
        fs_group: asked.fs_group.or(Some(USER)),
        fs_group_change_policy: asked.fs_group_change_policy,
        run_as_group: asked.run_as_group.or(Some(USER)),
        run_as_non_root: Some(true),
        run_as_user: asked.run_as_user.filter(|user| *user != 0).or(Some(USER)),
        se_linux_change_policy: asked.se_linux_change_policy,
        se_linux_options: asked.se_linux_options.and_then(se_linux),
        seccomp_profile: asked
            .seccomp_profile
            .filter(is_seccomp)
            .or_else(|| Some(runtime_default())),
        supplemental_groups: asked.supplemental_groups,
        supplemental_groups_policy: asked.supplemental_groups_policy,
        sysctls,
        ..PodSecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        localhost_profile: None,
    }
}

fn is_app_armor(profile: &AppArmorProfile) -> bool {
    PROFILE_TYPES.contains(&profile.type_.as_str())
}

fn is_seccomp(profile: &SeccompProfile) -> bool {
    PROFILE_TYPES.contains(&profile.type_.as_str())
}

fn se_linux(asked: SELinuxOptions) -> Option<SELinuxOptions> {
    let type_ = asked.type_.unwrap_or_default();
    SELINUX_TYPES
        .contains(&type_.as_str())
        .then_some(SELinuxOptions {
            level: asked.level,
            type_: (!type_.is_empty()).then_some(type_),
            ..SELinuxOptions::default()
        })
}
