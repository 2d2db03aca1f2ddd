//! The CRDs of the kinds, as YAML.

use anyhow::{Result, ensure};
use kube::CustomResourceExt;
use stoker_api::v1alpha1::{DataStore, JoinToken, KubeconfigGenerator, TenantControlPlane};

use super::yaml;

/// Client-side `kubectl apply` keeps the whole object, as compact JSON, in an annotation; all annotations together have
/// at most this many bytes (`TotalAnnotationSizeLimitB` of apimachinery).
const LARGEST_OBJECT: usize = 256 * 1024;

/// File and YAML of every kind, in the order of installation.
pub(super) fn all() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("crds/stoker.dev_datastores.yaml", crd::<DataStore>()?),
        ("crds/stoker.dev_jointokens.yaml", crd::<JoinToken>()?),
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
    let crd = serde_json::to_value(K::crd())?;
    let applied = crd.to_string().len();
    ensure!(
        applied < LARGEST_OBJECT,
        "{} is too large for client-side kubectl apply: {applied} bytes of JSON",
        K::crd_name()
    );
    yaml::canonical(crd)
}
