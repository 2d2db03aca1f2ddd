//! Whether a tenant's API servers verify the certificates that its kubelets serve.
//!
//! A kubelet that joined before Stoker approved certificates serves one that it signed itself: verified, `kubectl logs`
//! and `exec` would fail on it. So tenants that lived then stay as they are until their spec says otherwise.

use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{TenantControlPlane, TenantControlPlaneStatus};

use super::claim::is_born;
use super::state::{TenantState, lock};

/// As the spec says; else as it was; else from birth on.
pub(super) fn verified(object: &TenantControlPlane, tenant: &Tenant, state: &TenantState) -> bool {
    let written = lock(&state.written);
    let says = |status: &TenantControlPlaneStatus| status.kubelets_verified;
    let recorded = written.as_ref().and_then(says);
    let recorded = recorded.or_else(|| object.status.as_ref().and_then(says));
    drop(written);
    decide(
        tenant.kubelet.serving_certificates(),
        recorded,
        is_born(object, state),
    )
}

fn decide(asked: Option<bool>, recorded: Option<bool>, born: bool) -> bool {
    asked.or(recorded).unwrap_or(!born)
}

#[cfg(test)]
mod tests {
    use super::decide;

    #[test]
    fn nodes_of_before_are_not_cut_off_and_new_tenants_verify() {
        assert!(decide(None, None, false), "a birth");
        assert!(decide(None, Some(true), true), "and later");
        assert!(!decide(None, None, true), "it lived before");
        assert!(!decide(None, Some(false), true), "and later");
        assert!(decide(Some(true), Some(false), true), "its nodes follow");
        assert!(!decide(Some(false), Some(true), true), "the spec says no");
    }
}
