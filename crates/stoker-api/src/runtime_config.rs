//! Versions of the API that are off until they are asked for, per minor
//! (`k8s.io/kubernetes/pkg/controlplane/instance.go`, `betaAPIGroupVersionsDisabledByDefault` and
//! `alphaAPIGroupVersionsDisabledByDefault`; those of `flowcontrol.apiserver.k8s.io` are served no more).
//! A test starts API servers with all of them on and compares.

use std::collections::BTreeMap;

use crate::spans::{self, Span};
use crate::version::KubernetesVersion;

/// Stand for many versions at once.
const GROUPS_OF_VERSIONS: [&str; 3] = ["api/all", "api/beta", "api/alpha"];

/// First and last supported minor of a version.
const VERSIONS: &[Span] = &[
    (
        33,
        36,
        &[
            "admissionregistration.k8s.io/v1alpha1",
            "admissionregistration.k8s.io/v1beta1",
            "certificates.k8s.io/v1alpha1",
            "certificates.k8s.io/v1beta1",
            "coordination.k8s.io/v1alpha2",
            "coordination.k8s.io/v1beta1",
            "internal.apiserver.k8s.io/v1alpha1",
            "networking.k8s.io/v1beta1",
            "resource.k8s.io/v1alpha3",
            "resource.k8s.io/v1beta1",
            "resource.k8s.io/v1beta2",
            "storage.k8s.io/v1beta1",
        ],
    ),
    (
        33,
        34,
        &[
            "storage.k8s.io/v1alpha1",
            "storagemigration.k8s.io/v1alpha1",
        ],
    ),
    (35, 35, &["scheduling.k8s.io/v1alpha1"]),
    (35, 36, &["storagemigration.k8s.io/v1beta1"]),
    (36, 36, &["scheduling.k8s.io/v1alpha2"]),
];

/// Why a version of the API cannot be turned on or off. The message says what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum RefusedVersion {
    #[error("{ALL_OFF}")]
    AllOff,
    #[error("{name} is in v1.{first} to v1.{last} only: take it out, or name another version")]
    Elsewhere { name: String, first: u32, last: u32 },
    #[error("{0}: {FORM_MESSAGE}")]
    Unknown(String),
}

/// The versions that `minor` serves when they are asked for.
pub fn of(minor: u32) -> impl Iterator<Item = &'static str> {
    spans::of(VERSIONS, minor)
}

/// Checks what is asked for.
///
/// # Errors
/// The first entry that kube-apiserver of `version` would not start with, or that Stoker could not work with.
pub fn check(
    version: KubernetesVersion,
    asked: &BTreeMap<String, bool>,
) -> Result<(), RefusedVersion> {
    for (name, on) in asked {
        if name == "api/all" && !on {
            return Err(RefusedVersion::AllOff);
        }
        if GROUPS_OF_VERSIONS.contains(&name.as_str()) {
            continue;
        }
        let span = spans::span_of(VERSIONS, name);
        let (first, last) = span.ok_or_else(|| RefusedVersion::Unknown(name.clone()))?;
        if !(first..=last).contains(&version.minor) {
            let name = name.clone();
            return Err(RefusedVersion::Elsewhere { name, first, last });
        }
    }
    Ok(())
}

const FORM_MESSAGE: &str = "runtimeConfig turns alpha and beta versions on or off, such as \
    resource.k8s.io/v1beta1, or all by api/alpha, api/beta and api/all; stable ones are always on";
const ALL_OFF: &str = "runtimeConfig: api/all can only be true: nodes, controllers and Stoker need the stable versions";

/// CEL: every key of `self` is an alpha or beta version, or stands for many.
pub(crate) fn form() -> (String, &'static str) {
    let many = GROUPS_OF_VERSIONS
        .map(|name| format!("'{name}'"))
        .join(", ");
    let form = "^[a-z0-9.]+[.]k8s[.]io/v[0-9]+(alpha|beta)[0-9]+$";
    (
        format!("self.all(k, k in [{many}] || k.matches('{form}'))"),
        FORM_MESSAGE,
    )
}

/// CEL: what is stable stays on.
pub(crate) fn keeps_stable() -> (&'static str, &'static str) {
    ("!('api/all' in self) || self['api/all']", ALL_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: &str, name: &str, on: bool) -> Option<String> {
        let asked = [(name.to_owned(), on)].into();
        let refused = check(version.parse().unwrap(), &asked).err()?;
        Some(refused.to_string())
    }

    #[test]
    fn a_version_goes_where_its_release_has_it() {
        for name in ["api/all", "api/beta", "resource.k8s.io/v1beta1"] {
            assert_eq!(refused("v1.36.3", name, true), None);
        }
        let said = refused("v1.36.3", "storagemigration.k8s.io/v1alpha1", true).unwrap();
        assert!(said.contains("v1.33 to v1.34 only"), "{said}");
    }

    #[test]
    fn stable_versions_stay_on() {
        for name in [
            "apps/v1",
            "v1",
            "rbac.authorization.k8s.io/v1",
            "api/ga",
            "x/v1beta1",
        ] {
            let said = refused("v1.36.3", name, false).unwrap();
            assert!(said.contains("stable ones are always on"), "{said}");
        }
        assert!(
            refused("v1.36.3", "api/all", false)
                .unwrap()
                .contains("can only be true")
        );
    }
}
