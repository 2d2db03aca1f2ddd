//! What kubeadm's defaults for the add-ons are, per Kubernetes minor.

use stoker_api::v1alpha1::Addon;
use stoker_api::version::KubernetesVersion;

/// Registry of upstream images (kubeadm's `DefaultImageRepository`).
pub(crate) const IMAGE_REPOSITORY: &str = "registry.k8s.io";

/// Tag of the `CoreDNS` image that kubeadm of this minor deploys (`constants.CoreDNSVersion`).
fn core_dns_tag(version: KubernetesVersion) -> &'static str {
    match version.minor {
        ..=33 => "v1.12.0",
        34 => "v1.12.1",
        35 => "v1.13.1",
        36.. => "v1.14.2",
    }
}

/// Whether the probes of `CoreDNS` name their ports and the container lists them: since 1.34.
pub(crate) fn core_dns_names_probe_ports(version: KubernetesVersion) -> bool {
    version.minor >= 34
}

/// Image of `CoreDNS` (kubeadm's `images.GetDNSImage`): the upstream registry alone keeps it one
/// folder deeper.
pub(crate) fn core_dns_image(addon: &Addon, version: KubernetesVersion) -> String {
    let repository = match given(addon.image_repository.as_deref()) {
        None | Some(IMAGE_REPOSITORY) => &format!("{IMAGE_REPOSITORY}/coredns"),
        Some(repository) => repository,
    };
    let tag = given(addon.image_tag.as_deref()).unwrap_or(core_dns_tag(version));
    format!("{repository}/coredns:{tag}")
}

/// Image of kube-proxy: of the control plane's release unless the spec gives a tag.
pub(crate) fn kube_proxy_image(addon: &Addon, version: KubernetesVersion) -> String {
    let repository = given(addon.image_repository.as_deref()).unwrap_or(IMAGE_REPOSITORY);
    let tag = given(addon.image_tag.as_deref()).map_or_else(|| version.to_string(), str::to_owned);
    format!("{repository}/kube-proxy:{tag}")
}

/// A field of the spec, unless empty; without the slash that people put behind a repository.
fn given(field: Option<&str>) -> Option<&str> {
    field
        .map(|text| text.trim_end_matches('/'))
        .filter(|text| !text.is_empty())
}
