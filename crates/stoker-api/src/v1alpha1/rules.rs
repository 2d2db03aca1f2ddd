//! Patterns that several CEL rules share (RE2, anchored, to stand inside a CEL '…' literal).

/// A DNS-1123 subdomain.
pub(super) const DNS_NAME: &str =
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A DNS-1123 subdomain behind one wildcard label.
pub(super) const WILDCARD_DNS_NAME: &str = "^[*]([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+$";

/// A DNS-1035 label.
pub(super) const DNS_LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
