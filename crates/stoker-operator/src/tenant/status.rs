//! The status that follows from what a pass found. Pure.

mod findings;
mod sleep;
pub mod stuck;
pub mod urgency;

use jiff::Timestamp;
use stoker_api::labels::TENANT;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{
    AddonStatus, AddonsStatus, CertificatesStatus, ConfigMapStatus, DeploymentStatus,
    KubeconfigsStatus, SecretStatus, ServiceStatus, TenantControlPlaneStatus, VersionState,
};
use stoker_control_plane::Names;
use stoker_kube::conditions;

pub use self::findings::{Aspect, Check, Findings};
use super::hibernation;
use super::rollout::Turn;
use super::routes::Routed;
use super::writes;
use super::{authority, encryption};

/// The condition of tenants whose pods are replaced because of us: `True` when it is their turn.
pub const ROLLOUT_TURN: &str = "RolloutTurn";

/// The status after a pass.
#[must_use]
pub fn status(
    old: &TenantControlPlaneStatus,
    tenant: Option<&Tenant>,
    generation: i64,
    findings: &Findings,
    now: Timestamp,
) -> TenantControlPlaneStatus {
    let mut new = old.clone();
    new.observed_generation = generation;
    if let Some(storage) = &findings.storage {
        new.storage = Some(storage.clone());
    }
    if let Some(tenant) = tenant {
        describe(&mut new, tenant, findings);
        new.hibernation.clone_from(&findings.hibernation);
    }
    if findings
        .routes
        .as_ref()
        .is_some_and(|routes| *routes == Routed::default())
    {
        let routed = Aspect::Routed.condition();
        new.conditions.retain(|condition| condition.type_ != routed);
    }
    for (aspect, check) in &findings.checks {
        set(&mut new, aspect.condition(), check, generation, now);
    }
    if let Some(check) = &findings.writes {
        set(&mut new, writes::CONDITION, check, generation, now);
    }
    if let Some(check) = &findings.encryption {
        set(&mut new, encryption::CONDITION, check, generation, now);
    }
    if let Some(check) = &findings.authority {
        set(&mut new, authority::CONDITION, check, generation, now);
    }
    let ready = sleep::waking(old, tenant, findings, readiness(&new, findings, tenant));
    set(&mut new, "Ready", &ready, generation, now);
    sleep::describe(&mut new, tenant, findings, &ready, generation, now);
    describe_turn(&mut new, findings.rollout, generation, now);
    stuck::mark(
        &mut new,
        None,
        findings.deployment.as_ref(),
        generation,
        now,
    );
    if let Some(tenant) = tenant {
        settle_version(&mut new, tenant, &ready, findings.is_deployment_observed());
    }
    new
}

/// Only tenants in the queue have this condition. What it says names no other tenant, so that it is written once.
fn describe_turn(
    status: &mut TenantControlPlaneStatus,
    turn: Option<Turn>,
    generation: i64,
    now: Timestamp,
) {
    const CAUSE: &str = "the control-plane pods change without a change of spec, as by another version or configuration of the operator";
    let check = match turn {
        None => {
            status
                .conditions
                .retain(|found| found.type_ != ROLLOUT_TURN);
            return;
        }
        Some(Turn::Rolling) => Check::holds("Rolling", format!("{CAUSE}; they are being replaced")),
        Some(Turn::Waiting) => Check::fails(
            "Waiting",
            format!(
                "{CAUSE}; one tenant after the other gets new ones, once the one before is ready again. A change of spec does not wait"
            ),
        ),
    };
    set(status, ROLLOUT_TURN, &check, generation, now);
}

fn set(
    status: &mut TenantControlPlaneStatus,
    type_: &str,
    check: &Check,
    generation: i64,
    now: Timestamp,
) {
    conditions::set(
        &mut status.conditions,
        type_,
        check.holds,
        check.reason,
        &check.message,
        generation,
        now,
    );
}

/// Ready when every aspect holds; else the first one that does not says why.
fn readiness(
    status: &TenantControlPlaneStatus,
    findings: &Findings,
    tenant: Option<&Tenant>,
) -> Check {
    if let Some(check) = findings.first_failure() {
        return check.clone();
    }
    if tenant.is_some_and(|tenant| tenant.replicas == 0) {
        let why = hibernation::why_asleep(findings.hibernation.as_ref(), findings.no_replicas);
        return Check::fails(sleep::SLEEPING, why);
    }
    let holds = |aspect: Aspect| match conditions::find(&status.conditions, aspect.condition()) {
        Some(found) => found.status == "True",
        None => aspect == Aspect::Routed,
    };
    if Aspect::ALL.into_iter().all(holds) {
        let message = "the API server answers and the tenant is configured".to_owned();
        return Check {
            holds: true,
            reason: "Available",
            message,
        };
    }
    let message = "the control plane is being made".to_owned();
    Check {
        holds: false,
        reason: "Provisioning",
        message,
    }
}

/// Names and places of what was made.
fn describe(status: &mut TenantControlPlaneStatus, tenant: &Tenant, findings: &Findings) {
    let names = Names::of(tenant);
    if let Some(exposure) = &findings.exposure {
        status.control_plane_endpoint = exposure.endpoint.as_ref().map(ToString::to_string);
        status.kubernetes_resources.service = ServiceStatus {
            name: names.service.clone(),
            namespace: tenant.namespace.clone(),
            port: exposure.port.map_or(0, i32::from),
            load_balancer: exposure.load_balancer.clone(),
        };
    }
    if let Some(routes) = &findings.routes {
        status
            .kubernetes_resources
            .ingress
            .clone_from(&routes.ingress);
        status
            .kubernetes_resources
            .gateway
            .clone_from(&routes.gateway);
    }
    if !findings.applied {
        return;
    }
    let secret = |name: &String| SecretStatus {
        secret_name: name.clone(),
    };
    status.certificates = CertificatesStatus {
        ca: secret(&names.ca),
        api_server: secret(&names.api_server_certificate),
        api_server_kubelet_client: secret(&names.kubelet_client),
        front_proxy_ca: secret(&names.front_proxy_ca),
        front_proxy_client: secret(&names.front_proxy_client),
        sa: secret(&names.service_account_keys),
    };
    status.kubeconfig = KubeconfigsStatus {
        admin: secret(&names.admin_kubeconfig),
        controller_manager: secret(&names.controller_manager_kubeconfig),
        scheduler: secret(&names.scheduler_kubeconfig),
    };
    if findings.kubelets_verified.is_some() {
        status.kubelets_verified = findings.kubelets_verified;
    }
    status.kubeadmconfig = ConfigMapStatus {
        config_map_name: names.kubeadm_config.clone(),
    };
    status.addons = AddonsStatus {
        core_dns: AddonStatus {
            enabled: tenant.addons.core_dns.is_some(),
        },
        kube_proxy: AddonStatus {
            enabled: tenant.addons.kube_proxy.is_some(),
        },
        konnectivity: AddonStatus {
            enabled: tenant.addons.konnectivity.is_some(),
        },
        node_listener: AddonStatus {
            enabled: tenant.addons.node_listener.is_some(),
        },
    };
    let seen = findings
        .deployment
        .as_ref()
        .and_then(|deployment| deployment.status.as_ref());
    status.kubernetes_resources.deployment = DeploymentStatus {
        name: names.deployment.clone(),
        namespace: tenant.namespace.clone(),
        selector: format!("{TENANT}={}", tenant.name),
        replicas: seen.and_then(|status| status.replicas).unwrap_or_default(),
        ready_replicas: seen
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default(),
        updated_replicas: seen
            .and_then(|status| status.updated_replicas)
            .unwrap_or_default(),
    };
}

/// The tenant's state in one word; the installed version advances once the rollout is complete.
fn settle_version(
    status: &mut TenantControlPlaneStatus,
    tenant: &Tenant,
    ready: &Check,
    observed: bool,
) {
    let waking = ready.reason == sleep::WAKING;
    let ready = ready.holds;
    let wanted = tenant.version.to_string();
    let limited = is_limited(status);
    let resources = &mut status.kubernetes_resources;
    let deployment = &resources.deployment;
    let rolled_out = observed
        && deployment.updated_replicas == tenant.replicas
        && deployment.replicas == deployment.updated_replicas
        && deployment.ready_replicas == deployment.updated_replicas;
    let installed = resources.version.version.as_deref();
    if ready && (installed.is_none() || rolled_out) {
        resources.version.version = Some(wanted.clone());
    }
    resources.version.status = match resources.version.version.as_deref() {
        _ if tenant.replicas == 0 => VersionState::Sleeping,
        None => VersionState::Provisioning,
        Some(_) if waking => VersionState::Waking,
        Some(_) if ready && limited => VersionState::WriteLimited,
        Some(installed) if installed != wanted => VersionState::Upgrading,
        Some(_) if ready => VersionState::Ready,
        Some(_) => VersionState::NotReady,
    };
}

/// Whether writes are refused: as last found out, and while that changes as it was.
fn is_limited(status: &TenantControlPlaneStatus) -> bool {
    match writes::condition(status) {
        Some(found) if found.status == "True" => found.reason == writes::LIMITED,
        Some(_) => status.kubernetes_resources.version.status == VersionState::WriteLimited,
        None => false,
    }
}

#[cfg(test)]
mod tests;
