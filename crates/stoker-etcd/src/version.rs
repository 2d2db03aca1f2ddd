//! Which etcd versions keep tenants apart.
//!
//! Until summer 2026 etcd's permission checks could be passed by in several ways with nothing but
//! a tenant's certificate: nested transactions, `PrevKv` and leases inside transactions, watches
//! from a single-key permission, and alarms or compaction by anyone. Each release line got the last
//! of the fixes (GHSA-xg4h-6gfc-h4m8) at its floor; older lines get none.

use semver::Version;

/// The first safe release of each line that has one, oldest first.
pub const FLOORS: [Version; 3] = [
    Version::new(3, 5, 33),
    Version::new(3, 6, 14),
    Version::new(3, 7, 1),
];

/// Why a version was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The line has a safe release and this one is before it.
    #[error(
        "below {floor} a tenant's certificate can read or change other tenants' keys; \
         upgrade every member to {floor} or newer"
    )]
    BelowFloor {
        /// The first safe release of that line.
        floor: Version,
    },
    /// The line is so old that no release of it is safe.
    #[error("no release of its line keeps tenants apart; upgrade every member to {floor} or newer")]
    LineWithoutFix {
        /// The first safe release of the oldest line that has one.
        floor: Version,
    },
    /// The member reports something that is not a version.
    #[error("it is not a version; check that the endpoint is etcd")]
    NotAVersion,
}

impl Refusal {
    /// The version to upgrade to at least, where one is known.
    #[must_use]
    pub fn floor(&self) -> Option<&Version> {
        match self {
            Self::BelowFloor { floor } | Self::LineWithoutFix { floor } => Some(floor),
            Self::NotAVersion => None,
        }
    }
}

/// Accepts a version that keeps tenants apart.
///
/// A pre-release sorts before its release, so `3.6.14-rc.0` is below the floor of 3.6.
///
/// # Errors
/// Returns the [`Refusal`] that says what to upgrade to.
pub fn accept(text: &str) -> Result<Version, Refusal> {
    let version = Version::parse(text.trim()).map_err(|_| Refusal::NotAVersion)?;
    let line = (version.major, version.minor);
    if let Some(floor) = FLOORS
        .iter()
        .find(|floor| (floor.major, floor.minor) == line)
    {
        return if version >= *floor {
            Ok(version)
        } else {
            Err(Refusal::BelowFloor {
                floor: floor.clone(),
            })
        };
    }
    let [oldest, ..] = FLOORS;
    if line < (oldest.major, oldest.minor) {
        return Err(Refusal::LineWithoutFix { floor: oldest });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_floor() {
        for good in [
            "3.5.33",
            "3.5.100",
            "3.6.14",
            "3.6.16",
            "3.6.100",
            "3.7.1",
            "3.7.1+build",
            "3.7.2-rc.0",
            "3.8.0",
            "3.10.0",
            "4.0.0",
            " 3.6.16\n",
        ] {
            assert!(accept(good).is_ok(), "{good}");
        }
        for (bad, floor) in [
            ("3.5.32", "3.5.33"),
            ("3.5.9", "3.5.33"),
            ("3.6.0", "3.6.14"),
            ("3.6.8", "3.6.14"),
            ("3.6.9", "3.6.14"),
            ("3.6.13", "3.6.14"),
            ("3.6.14-rc.0", "3.6.14"),
            ("3.7.0", "3.7.1"),
            ("3.7.0-rc.1", "3.7.1"),
            ("3.4.44", "3.5.33"),
            ("3.3.27", "3.5.33"),
            ("2.3.8", "3.5.33"),
        ] {
            let refusal = accept(bad).unwrap_err();
            assert_eq!(refusal.floor().unwrap().to_string(), floor, "{bad}");
            assert!(refusal.to_string().contains(floor), "{bad}: {refusal}");
        }
        for garbage in ["", "3", "3.6", "latest", "3.6.x", "v3.6.16"] {
            assert_eq!(accept(garbage), Err(Refusal::NotAVersion), "{garbage}");
        }
    }
}
