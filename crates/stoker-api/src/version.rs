//! Kubernetes releases.

use std::fmt;
use std::str::FromStr;

/// Oldest and newest minor of Kubernetes 1 that tenants may run.
pub const SUPPORTED_MINORS: std::ops::RangeInclusive<u32> = 33..=36;

/// A supported Kubernetes release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    /// The `y` of `v1.y.z`.
    pub minor: u32,
    /// The `z` of `v1.y.z`.
    pub patch: u32,
}

/// Why a release cannot be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VersionError {
    /// Not of the form `vMAJOR.MINOR.PATCH`.
    #[error("{0:?} is not a release such as v1.36.3")]
    Malformed(String),
    /// A release outside [`SUPPORTED_MINORS`].
    #[error("{0} is not supported: use a release of v1.33 to v1.36")]
    Unsupported(String),
}

impl FromStr for KubernetesVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let malformed = || VersionError::Malformed(text.to_owned());
        let parts = text
            .strip_prefix('v')
            .ok_or_else(malformed)?
            .split('.')
            .map(|part| part.parse::<u32>().map_err(|_| malformed()))
            .collect::<Result<Vec<_>, _>>()?;
        let [major, minor, patch] = parts[..] else {
            return Err(malformed());
        };
        if major != 1 || !SUPPORTED_MINORS.contains(&minor) {
            return Err(VersionError::Unsupported(text.to_owned()));
        }
        Ok(Self { minor, patch })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1.{}.{}", self.minor, self.patch)
    }
}
