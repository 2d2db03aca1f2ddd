//! The Secret that a `KubeconfigGenerator` asks for.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stoker_api::labels::{GENERATED_BY, GENERATED_FOR};
use stoker_api::v1alpha1::TenantControlPlane;

use crate::entry::GENERATED_KUBECONFIG;
use crate::metadata::{labels_of, owner_of};

/// Its name: the contract's.
#[must_use]
pub fn generated_name(tenant: &str, generator: &str) -> String {
    format!("{tenant}-{generator}")
}

/// The Secret with the kubeconfig `text` that `generator` asks for. It goes with the tenant.
#[must_use]
pub fn generated_kubeconfig(tenant: &TenantControlPlane, generator: &str, text: &str) -> Secret {
    let of = &tenant.metadata;
    let name = of.name.clone().unwrap_or_default();
    let mut labels = labels_of(&name, "generated-kubeconfig");
    labels.insert(GENERATED_BY.to_owned(), generator.to_owned());
    labels.insert(GENERATED_FOR.to_owned(), name.clone());
    let value = ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(generated_name(&name, generator)),
            namespace: of.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner_of(&name, of.uid.as_deref().unwrap_or_default())]),
            ..ObjectMeta::default()
        },
        data: Some([(GENERATED_KUBECONFIG.to_owned(), value)].into()),
        ..Secret::default()
    }
}
