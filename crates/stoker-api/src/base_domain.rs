//! The domain under which every tenant has a name of its own.

use std::str::FromStr;

use crate::StorageId;
use crate::wake::PREFIX;

/// Longest DNS name.
const LONGEST: usize = 253;
/// The longest first label, of a name that wakes, and the dot behind it.
const LABEL: usize = PREFIX.len() + 33;

/// A domain of the operator's owner. Tenants are reached as `<storage id>.<base domain>`: a name that
/// is never used again, so whoever made the records of it can leave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseDomain(String);

/// Why text is no base domain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no domain such as clusters.example.com, lower-case and at most 215 characters long"
)]
pub struct NoDomain(String);

impl BaseDomain {
    /// The stable name of the tenant of this id.
    #[must_use]
    pub fn name_of(&self, id: &StorageId) -> String {
        format!("{id}.{}", self.0)
    }
}

impl FromStr for BaseDomain {
    type Err = NoDomain;

    fn from_str(text: &str) -> Result<Self, NoDomain> {
        let letter_or_digit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.starts_with(letter_or_digit)
                && label.ends_with(letter_or_digit)
                && label.chars().all(|c| letter_or_digit(c) || c == '-')
        };
        let is_domain = text.len() + LABEL <= LONGEST && text.split('.').all(is_label);
        if is_domain {
            Ok(Self(text.to_owned()))
        } else {
            Err(NoDomain(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_a_name_of_its_own() {
        let id: StorageId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let domain: BaseDomain = "clusters.example.com".parse().unwrap();
        assert_eq!(
            domain.name_of(&id),
            "0123456789abcdef0123456789abcdef.clusters.example.com"
        );
    }

    #[test]
    fn only_domains_that_leave_room_are_taken() {
        let domain = |length: usize| ["a"; 110].join(".").repeat(2)[..length].to_owned();
        let taken = |text: &str| text.parse::<BaseDomain>().is_ok();
        assert!(taken("k8s") && taken("a-1.example") && taken(&domain(213)));
        let refused = [
            "", ".", "a.", ".a", "A.b", "a b", "-a.b", "a-.b", "*.a", "a:443",
        ];
        for text in refused {
            assert!(!taken(text), "{text:?}");
        }
        assert!(!taken(&format!("{}a.b", domain(213))) && !taken(&"a".repeat(64)));
    }
}
