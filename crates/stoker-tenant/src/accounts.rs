//! Add-ons and the incarnations of their service accounts.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::TenantObjects;

/// Annotation of a pod template with the uid of the service account that its pods run as.
const ACCOUNT_UID: &str = "stoker.dev/service-account-uid";

impl TenantObjects {
    /// Ties the pods of the add-ons to the service accounts as they exist now, whose uid `uid_of` tells by
    /// namespace and name. A token names the uid of its account: when somebody deletes the account, the one
    /// that takes its place must come with new pods, or the old ones are refused until the kubelet renews
    /// their tokens, up to 48 minutes later.
    pub fn tie_to_accounts(&mut self, uid_of: impl Fn(&str, &str) -> Option<String>) {
        let deployments = self.deployments.iter_mut().filter_map(|deployment| {
            let namespace = deployment.metadata.namespace.clone()?;
            Some((namespace, &mut deployment.spec.as_mut()?.template))
        });
        let daemon_sets = self.daemon_sets.iter_mut().filter_map(|daemon_set| {
            let namespace = daemon_set.metadata.namespace.clone()?;
            Some((namespace, &mut daemon_set.spec.as_mut()?.template))
        });
        for (namespace, template) in deployments.chain(daemon_sets) {
            tie(&namespace, template, &uid_of);
        }
    }
}

fn tie(
    namespace: &str,
    template: &mut PodTemplateSpec,
    uid_of: &impl Fn(&str, &str) -> Option<String>,
) {
    let account = template
        .spec
        .as_ref()
        .filter(|spec| spec.automount_service_account_token != Some(false))
        .and_then(|spec| spec.service_account_name.as_deref());
    if let Some(uid) = account.and_then(|name| uid_of(namespace, name)) {
        let annotations = &mut template.metadata.get_or_insert_default().annotations;
        annotations
            .get_or_insert_default()
            .insert(ACCOUNT_UID.to_owned(), uid);
    }
}
