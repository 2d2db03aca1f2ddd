//! Feature gates, per minor. All components and the kubelet of a release know the same ones; those that
//! have graduated are locked or gone (`k8s.io/component-base/featuregate`, `KnownFeatures`).

mod table;

use std::collections::BTreeMap;

use crate::arguments::FIXED_GATES;
use crate::spans;
use crate::version::KubernetesVersion;

/// Gates without which the configuration that Stoker makes is refused, or nodes are less apart.
const NEEDED: [&str; 5] = [
    "AnonymousAuthConfigurableEndpoints",
    "AuthorizeNodeWithSelectors",
    "AuthorizeWithSelectors",
    "RotateKubeletServerCertificate",
    "StructuredAuthenticationConfiguration",
];

/// Why a feature gate cannot be set. The message says what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum RefusedGate {
    #[error("{0} stays as Stoker sets it: take it out")]
    Fixed(String),
    #[error("{0} must stay on, what Stoker configures needs it: take it out")]
    Needed(String),
    #[error("{name} comes with v1.{since}: take it out until the control plane is of that minor")]
    Later { name: String, since: u32 },
    #[error(
        "{name} can be set up to v1.{until} only, it has graduated since or is gone: take it out"
    )]
    Earlier { name: String, until: u32 },
    #[error("{0} is no alpha or beta gate of any supported release: is it spelled right?")]
    Unknown(String),
}

/// The gates that can be set in `minor`.
pub fn of(minor: u32) -> impl Iterator<Item = &'static str> {
    spans::of(table::GATES, minor)
}

/// Checks the gates asked for.
///
/// # Errors
/// The first that a component of `version` would not start with, or that would undo what Stoker needs.
pub fn check(
    version: KubernetesVersion,
    asked: &BTreeMap<String, bool>,
) -> Result<(), RefusedGate> {
    for (name, on) in asked {
        let own = || name.clone();
        if FIXED_GATES.contains(&name.as_str()) {
            return Err(RefusedGate::Fixed(own()));
        }
        let span = spans::span_of(table::GATES, name);
        let (since, until) = span.ok_or_else(|| RefusedGate::Unknown(own()))?;
        if version.minor < since {
            let name = own();
            return Err(RefusedGate::Later { name, since });
        }
        if version.minor > until {
            let name = own();
            return Err(RefusedGate::Earlier { name, until });
        }
        if !on && NEEDED.contains(&name.as_str()) {
            return Err(RefusedGate::Needed(own()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::version::SUPPORTED_MINORS;

    fn refused(version: &str, name: &str, on: bool) -> Option<String> {
        let asked = [(name.to_owned(), on)].into();
        let refused = check(version.parse().unwrap(), &asked).err()?;
        Some(refused.to_string())
    }

    #[test]
    fn a_gate_goes_where_its_release_has_it() {
        assert_eq!(
            refused("v1.36.3", "CPUManagerPolicyAlphaOptions", true),
            None
        );
        let said = refused("v1.36.3", "VolumeAttributesClass", true).unwrap();
        assert!(said.contains("up to v1.33"), "{said}");
        let said = refused("v1.33.13", "NativeHistograms", true).unwrap();
        assert!(said.contains("comes with v1.36"), "{said}");
        let said = refused("v1.36.3", "MagicBeans", true).unwrap();
        assert!(said.contains("spelled right"), "{said}");
    }

    #[test]
    fn what_stoker_needs_stays() {
        for name in FIXED_GATES {
            assert!(refused("v1.36.3", name, false).unwrap().contains("Stoker"));
        }
        for name in NEEDED {
            assert!(
                refused("v1.33.13", name, false)
                    .unwrap()
                    .contains("must stay on")
            );
            assert_eq!(refused("v1.33.13", name, true), None);
        }
    }

    #[test]
    fn no_gate_is_there_twice_and_all_are_of_supported_minors() {
        let mut seen = BTreeSet::new();
        for (first, last, names) in table::GATES {
            assert!(SUPPORTED_MINORS.contains(first) && SUPPORTED_MINORS.contains(last));
            assert!(names.iter().all(|name| seen.insert(name)));
        }
    }
}
