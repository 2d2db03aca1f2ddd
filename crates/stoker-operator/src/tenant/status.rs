//! What a pass found, and the status that follows from it. Pure.

pub mod urgency;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use stoker_api::labels::TENANT;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{
    AddonStatus, AddonsStatus, CertificatesStatus, ConfigMapStatus, DeploymentStatus,
    KubeconfigsStatus, SecretStatus, ServiceStatus, StorageStatus, TenantControlPlaneStatus,
    VersionState,
};
use stoker_control_plane::{Exposure, Names};
use stoker_kube::conditions;

use super::error::Error;
use super::routes::Routed;
use super::writes;

/// One thing that must hold for a tenant to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// The spec can be served.
    Valid,
    /// The `DataStore` is there and holds the tenant's place.
    DataStoreReady,
    /// The management cluster holds every object of the control plane.
    ControlPlaneApplied,
    /// An API server of the tenant answers `/readyz`.
    ApiServerAvailable,
    /// The tenant holds every object that the operator keeps there.
    TenantConfigured,
    /// The route by hostname is in place. Only of tenants that ask for one.
    Routed,
}

impl Aspect {
    const ALL: [Self; 6] = [
        Self::Valid,
        Self::DataStoreReady,
        Self::ControlPlaneApplied,
        Self::ApiServerAvailable,
        Self::TenantConfigured,
        Self::Routed,
    ];

    /// The condition's type.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Valid => "Valid",
            Self::DataStoreReady => "DataStoreReady",
            Self::ControlPlaneApplied => "ControlPlaneApplied",
            Self::ApiServerAvailable => "APIServerAvailable",
            Self::TenantConfigured => "TenantConfigured",
            Self::Routed => "RouteApplied",
        }
    }
}

/// What was found of an aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it holds.
    pub holds: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// For people: what is the case, and what to do.
    pub message: String,
}

/// Everything that a pass found. What was not looked at keeps its former condition.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    checks: Vec<(Aspect, Check)>,
    /// The tenant's place in the pool.
    pub storage: Option<StorageStatus>,
    /// Where the API server is reached.
    pub exposure: Option<Exposure>,
    /// The routes by hostname, if they were looked at.
    pub routes: Option<Routed>,
    /// What was found of the writes that are refused, if anybody asked. The tenant is ready whatever it is.
    pub writes: Option<Check>,
    /// Whether another pass is due as soon as the status is written.
    pub again: bool,
    /// Whether the control plane's objects have been applied at least once.
    pub applied: bool,
    /// Whether the API servers verify the certificates that kubelets serve.
    pub kubelets_verified: Option<bool>,
    /// The Deployment as last seen.
    pub deployment: Option<Deployment>,
}

impl Check {
    /// It holds.
    #[must_use]
    pub fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason,
            message: message.into(),
        }
    }

    /// It does not hold.
    #[must_use]
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            reason,
            message: message.into(),
        }
    }
}

impl Findings {
    /// Notes what was found of an aspect. The first thing found to be wrong with it stays.
    pub fn found(&mut self, aspect: Aspect, check: Check) {
        let failed = |(found, check): &(Aspect, Check)| *found == aspect && !check.holds;
        if !self.checks.iter().any(failed) {
            self.checks.retain(|(found, _)| *found != aspect);
            self.checks.push((aspect, check));
        }
    }

    /// The aspect holds.
    pub fn holds(&mut self, aspect: Aspect, reason: &'static str, message: impl Into<String>) {
        self.found(aspect, Check::holds(reason, message));
    }

    /// The aspect does not hold.
    pub fn fails(&mut self, aspect: Aspect, reason: &'static str, message: impl Into<String>) {
        self.found(aspect, Check::fails(reason, message));
    }

    /// The aspect could not be brought about.
    pub fn error(&mut self, aspect: Aspect, error: &Error) {
        self.fails(aspect, error.category(), error.describe());
    }

    /// Whether the Deployment's counters speak of its latest template.
    fn is_deployment_observed(&self) -> bool {
        self.deployment.as_ref().is_some_and(|deployment| {
            let seen = deployment
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            seen >= deployment.metadata.generation
        })
    }

    /// Of the checks that failed that of the first aspect: what fails later may follow from it.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Check> {
        let failed = |aspect: &Aspect| {
            let mut checks = self.checks.iter();
            checks.find(|(found, check)| found == aspect && !check.holds)
        };
        Aspect::ALL.iter().find_map(failed).map(|(_, check)| check)
    }
}

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
    let ready = readiness(&new, findings, tenant);
    set(&mut new, "Ready", &ready, generation, now);
    if let Some(tenant) = tenant {
        settle_version(
            &mut new,
            tenant,
            ready.holds,
            findings.is_deployment_observed(),
        );
    }
    new
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
        let message = "no replicas are wanted; data and keys are kept".to_owned();
        return Check {
            holds: false,
            reason: "Sleeping",
            message,
        };
    }
    let holds = |aspect: Aspect| {
        let mut conditions = status.conditions.iter();
        match conditions.find(|found| found.type_ == aspect.condition()) {
            Some(found) => found.status == "True",
            None => aspect == Aspect::Routed,
        }
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
    ready: bool,
    observed: bool,
) {
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
