//! What kubeadm's defaults for the add-ons are, per Kubernetes minor.

use stoker_api::v1alpha1::Addon;
use stoker_api::version::KubernetesVersion;

/// Registry of upstream images (kubeadm's `DefaultImageRepository`).
pub(crate) const IMAGE_REPOSITORY: &str = "registry.k8s.io";

/// Tag of the `CoreDNS` image that kubeadm of this minor deploys (`constants.CoreDNSVersion`).
pub(crate) fn core_dns_tag(version: KubernetesVersion) -> &'static str {
    match version.minor {
        ..=33 => "v1.12.0",
        34 => "v1.12.1",
        35 => "v1.13.1",
        36.. => "v1.14.2",
    }
}

/// Whether `CoreDNS`' probes name their ports and the container lists them: since 1.34.
pub(crate) fn core_dns_names_probe_ports(version: KubernetesVersion) -> bool {
    version.minor >= 34
}

/// Image of an add-on: repository and tag each as the spec gives them, else as by default.
pub(crate) fn image(addon: &Addon, repository: &str, name: &str, tag: &str) -> String {
    let given = |field: &Option<String>, default: &str| {
        field
            .as_deref()
            .filter(|text| !text.is_empty())
            .unwrap_or(default)
            .trim_end_matches('/')
            .to_owned()
    };
    let repository = given(&addon.image_repository, repository);
    let tag = given(&addon.image_tag, tag);
    format!("{repository}/{name}:{tag}")
}
