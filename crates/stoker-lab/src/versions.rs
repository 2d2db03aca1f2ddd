//! Every upstream version the lab builds, in one table.
//!
//! A new Kubernetes minor is one row in [`KUBERNETES`]. What kubeadm of that version expects (the tags of
//! `CoreDNS` and pause) is written beside it, because images must carry exactly those names.

use anyhow::{Result, bail};

/// One Kubernetes release and what its kubeadm and tests expect around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KubernetesVersion {
    /// Release tag, such as `v1.36.3`; also the version of the module `k8s.io/kubernetes`.
    pub version: &'static str,
    /// Version of the staging modules (`k8s.io/api` and the others) of that release.
    pub staging: &'static str,
    /// `CoreDNSVersion` in kubeadm's constants: the tag of `registry.k8s.io/coredns/coredns`.
    pub coredns: &'static str,
    /// `PauseVersion` in kubeadm's constants: the tag of `registry.k8s.io/pause`.
    pub pause: &'static str,
}

/// The releases that tenants may run, newest first; the first is the management cluster's and the default.
pub const KUBERNETES: &[KubernetesVersion] = &[
    kubernetes("v1.36.3", "v0.36.3", "v1.14.2", "3.10.2"),
    kubernetes("v1.35.4", "v0.35.4", "v1.13.1", "3.10.1"),
    kubernetes("v1.34.4", "v0.34.4", "v1.12.1", "3.10.1"),
    kubernetes("v1.33.13", "v0.33.13", "v1.12.0", "3.10"),
];
/// `test/images/agnhost/VERSION` of the first release: the image that examples and tests run in pods.
pub const AGNHOST: &str = "2.63.0";
/// `test/images/sample-device-plugin/VERSION` of the first release.
pub const SAMPLE_DEVICE_PLUGIN: &str = "1.8.0";

/// The etcd of the management cluster and of the pool.
pub const ETCD: &str = "v3.6.16";
/// An etcd below the product's floor, with known access-control bypasses; the isolation suite must find them.
pub const ETCD_BELOW_FLOOR: &str = "v3.6.8";
/// The container runtime on every host.
pub const CONTAINERD: &str = "v2.4.2";
/// What people install the chart with.
pub const HELM: &str = "v4.3.1";

const fn kubernetes(
    version: &'static str,
    staging: &'static str,
    coredns: &'static str,
    pause: &'static str,
) -> KubernetesVersion {
    KubernetesVersion {
        version,
        staging,
        coredns,
        pause,
    }
}

/// The release of the management cluster, which tenants get when they ask for none.
#[must_use]
pub const fn default_kubernetes() -> KubernetesVersion {
    KUBERNETES[0]
}

/// The oldest release that is supported, for management clusters and for tenants.
#[must_use]
pub const fn oldest_kubernetes() -> KubernetesVersion {
    KUBERNETES[KUBERNETES.len() - 1]
}

/// The row for a full version (`v1.36.3`) or a minor (`1.36`).
///
/// # Errors
/// Names the known versions when this one is not in the table.
pub fn find_kubernetes(wanted: &str) -> Result<KubernetesVersion> {
    let wanted = wanted.trim_start_matches('v');
    let found = KUBERNETES.iter().find(|row| {
        let version = row.version.trim_start_matches('v');
        version == wanted
            || version
                .rsplit_once('.')
                .is_some_and(|(minor, _)| minor == wanted)
    });
    let Some(row) = found else {
        let known: Vec<_> = KUBERNETES.iter().map(|row| row.version).collect();
        bail!(
            "the lab cannot build Kubernetes {wanted}; it knows {}",
            known.join(", ")
        );
    };
    Ok(*row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_and_a_full_version_find_the_same_row() {
        assert_eq!(
            find_kubernetes("1.35").unwrap(),
            find_kubernetes("v1.35.4").unwrap()
        );
        assert!(find_kubernetes("1.3").is_err());
    }

    #[test]
    fn staging_follows_the_release_in_every_row() {
        for row in KUBERNETES {
            assert_eq!(row.staging.replacen("v0.", "v1.", 1), row.version);
        }
    }
}
