//! What several fields share: patterns for CEL rules (RE2, anchored, to stand inside a CEL '…'
//! literal), and when a field is not worth writing.

/// A DNS-1123 subdomain.
pub(super) const DNS_NAME: &str =
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A DNS-1123 subdomain behind one wildcard label.
pub(super) const WILDCARD_DNS_NAME: &str = "^[*]([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+$";

/// A DNS-1035 label.
pub(super) const DNS_LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// A DNS-1123 label.
pub(super) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Name of a label or annotation, with or without a prefix.
pub(super) const QUALIFIED_NAME: &str =
    "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$";

/// Value of a label.
pub(super) const LABEL_VALUE: &str = "^([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?$";

/// Registry and path of an image, without its tag; a trailing `/` is forgiven.
pub(super) const REPOSITORY: &str =
    "^[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*/?$";

/// Tag of an image.
pub(super) const TAG: &str = "^[A-Za-z0-9_][-._A-Za-z0-9]*$";

/// For fields whose default is to say nothing.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
