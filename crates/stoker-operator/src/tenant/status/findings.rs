//! What a pass found.

use k8s_openapi::api::apps::v1::Deployment;
use stoker_api::v1alpha1::{HibernationStatus, StorageStatus};
use stoker_control_plane::Exposure;

use crate::tenant::error::Error;
use crate::tenant::rollout::Turn;
use crate::tenant::routes::Routed;

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
    pub(super) const ALL: [Self; 6] = [
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
    pub(super) checks: Vec<(Aspect, Check)>,
    /// The tenant's place in the pool.
    pub storage: Option<StorageStatus>,
    /// Where the API server is reached.
    pub exposure: Option<Exposure>,
    /// The routes by hostname, if they were looked at.
    pub routes: Option<Routed>,
    /// What was found of the writes that are refused, if anybody asked. The tenant is ready whatever it is.
    pub writes: Option<Check>,
    /// What was found of the encryption of what is stored, where it is not as it always was.
    pub encryption: Option<Check>,
    /// What was found of the cluster authority, where it is not the one made at birth.
    pub authority: Option<Check>,
    /// Whether the tenant sleeps by `spec.hibernation`, where it has one.
    pub hibernation: Option<HibernationStatus>,
    /// Whether it sleeps for want of replicas, whatever that says.
    pub no_replicas: bool,
    /// Whether another pass is due as soon as the status is written.
    pub again: bool,
    /// Whether the control plane's objects have been applied at least once.
    pub applied: bool,
    /// Whether the API servers verify the certificates that kubelets serve.
    pub kubelets_verified: Option<bool>,
    /// The Deployment as last seen.
    pub deployment: Option<Deployment>,
    /// Where it is in the queue of those whose pods are replaced because of us.
    pub rollout: Option<Turn>,
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
    pub(super) fn is_deployment_observed(&self) -> bool {
        self.deployment.as_ref().is_some_and(|deployment| {
            let seen = deployment
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            seen >= deployment.metadata.generation
        })
    }

    /// Whether the aspect was looked at and holds.
    #[must_use]
    pub fn has_found(&self, aspect: Aspect) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|(found, check)| *found == aspect && check.holds)
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
