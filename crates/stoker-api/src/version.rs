//! Kubernetes releases: which ones tenants may run, in Rust and as CEL.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Oldest and newest minor of Kubernetes 1 that tenants may run.
pub const SUPPORTED_MINORS: RangeInclusive<u32> = 33..=36;

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
    #[error("{0} is not supported: use {range}", range = supported())]
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
            .map(|part| number(part).ok_or_else(malformed))
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

/// At most three digits without a leading zero or sign: the text comes back from `Display`.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (digits && canonical && text.len() <= 3)
        .then(|| text.parse().ok())
        .flatten()
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1.{}.{}", self.minor, self.patch)
    }
}

/// The supported releases in words.
pub(crate) fn supported() -> String {
    format!(
        "a release of v1.{} to v1.{}",
        SUPPORTED_MINORS.start(),
        SUPPORTED_MINORS.end()
    )
}

/// RE2 of a release, to stand inside a CEL `'…'` literal.
pub(crate) const RELEASE: &str =
    "^v(0|[1-9][0-9]{0,2})[.](0|[1-9][0-9]{0,2})[.](0|[1-9][0-9]{0,2})$";

/// CEL: `self` is a release.
pub(crate) fn is_release() -> String {
    format!("self.matches('{RELEASE}')")
}

/// CEL: `self` is a supported release, or no release at all, which [`is_release`] refuses.
pub(crate) fn is_supported() -> String {
    let minors: Vec<String> = SUPPORTED_MINORS.map(|minor| minor.to_string()).collect();
    format!(
        "!self.matches('{RELEASE}') || self.matches('^v1[.]({})[.]')",
        minors.join("|")
    )
}

/// CEL, on update: the minor does not go down.
pub(crate) fn no_downgrade() -> String {
    on_update("int(self.split('.')[1]) >= int(oldSelf.split('.')[1])")
}

/// CEL, on update: the minor goes up by one at most.
pub(crate) fn no_skip() -> String {
    on_update("int(self.split('.')[1]) - int(oldSelf.split('.')[1]) <= 1")
}

fn on_update(rule: &str) -> String {
    format!("!self.matches('{RELEASE}') || !oldSelf.matches('{RELEASE}') || {rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supported_release_comes_back_as_written() {
        for text in ["v1.33.0", "v1.34.10", "v1.36.3"] {
            assert_eq!(text.parse::<KubernetesVersion>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_text_is_no_release() {
        for text in [
            "",
            "v",
            "1.36.3",
            "v1.36",
            "v1.36.3.1",
            "v1.36.03",
            "v1.+36.3",
            "v1.36.x",
            "v1.36.3-rc.1",
            " v1.36.3",
            "v1.36.1000",
        ] {
            assert_eq!(
                text.parse::<KubernetesVersion>(),
                Err(VersionError::Malformed(text.to_owned())),
            );
        }
    }

    #[test]
    fn releases_outside_the_range_are_refused_by_name() {
        let error = "v1.32.13".parse::<KubernetesVersion>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "v1.32.13 is not supported: use a release of v1.33 to v1.36"
        );
        assert!("v1.37.0".parse::<KubernetesVersion>().is_err());
        assert!("v2.34.0".parse::<KubernetesVersion>().is_err());
    }
}
