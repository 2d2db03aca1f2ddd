//! How the gateway tells the operator that somebody wants a tenant which sleeps: one `ConfigMap` in the operator's
//! namespace, with an entry for each such tenant until the operator has taken it out.
//!
//! The right to patch this one object is all that the gateway needs, and what it wrote outlives either of them.

/// Name of the `ConfigMap`.
pub const REQUESTS: &str = "stoker-wake-requests";

/// The first label of a tenant's name behind which a connection wakes it: `wake-<storage id>.<base domain>`.
pub const PREFIX: &str = "wake-";

/// The entry of a tenant. Neither part has a dot.
#[must_use]
pub fn entry(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// Namespace and name of the tenant that an entry is for.
#[must_use]
pub fn tenant(entry: &str) -> Option<(&str, &str)> {
    entry.split_once('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_which_tenant_it_is_for() {
        assert_eq!(tenant(&entry("team-a", "one")), Some(("team-a", "one")));
        assert_eq!(tenant("one"), None);
    }
}
