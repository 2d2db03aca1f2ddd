//! The CRDs of the kinds, as YAML.

use anyhow::Result;
use kube::CustomResourceExt;
use stoker_api::v1alpha1::{DataStore, KubeconfigGenerator, TenantControlPlane};

use super::yaml;

/// File and YAML of every kind, in the order of installation.
pub(super) fn all() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("crds/stoker.dev_datastores.yaml", crd::<DataStore>()?),
        (
            "crds/stoker.dev_kubeconfiggenerators.yaml",
            crd::<KubeconfigGenerator>()?,
        ),
        (
            "crds/stoker.dev_tenantcontrolplanes.yaml",
            crd::<TenantControlPlane>()?,
        ),
    ])
}

fn crd<K: CustomResourceExt>() -> Result<String> {
    yaml::canonical(serde_json::to_value(K::crd())?)
}
