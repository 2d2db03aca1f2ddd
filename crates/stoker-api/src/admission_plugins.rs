//! Names of kube-apiserver's admission plugins, per minor
//! (`k8s.io/kubernetes/pkg/kubeapiserver/options/plugins.go`, `AllOrderedPlugins`).

/// In every supported minor. `AlwaysDeny` is left out: under it nothing works, Stoker included.
const ALWAYS: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysPullImages",
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NamespaceLifecycle",
    "NodeRestriction",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "PodNodeSelector",
    "PodSecurity",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// First minor of a plugin that came later.
const SINCE: &[(u32, &str)] = &[
    (35, "NodeDeclaredFeatureValidator"),
    (36, "JobValidation"),
    (36, "PodGroupProtection"),
    (36, "PodGroupWorkloadExists"),
    (36, "PodResizeValidator"),
];

/// The plugins that the API server of `minor` has.
pub fn of(minor: u32) -> impl Iterator<Item = &'static str> {
    let later = SINCE.iter().filter(move |(since, _)| *since <= minor);
    ALWAYS.iter().copied().chain(later.map(|(_, name)| *name))
}

/// CEL on `spec.kubernetes`: every entry of `admissionControllers` is a plugin of the release; and
/// the CEL of the message that names the first which is not.
pub(crate) fn exist() -> (String, String) {
    let always: Vec<String> = ALWAYS.iter().map(|name| format!("'{name}'")).collect();
    let later: Vec<String> = SINCE
        .iter()
        .map(|(since, name)| format!("'{name}': {since}"))
        .collect();
    // `PodSecurityPolicy` and others of the reference contract are in no release any more.
    let known = format!(
        "(p in [{}] || (p in {{{}}} && self.version.matches('^v1[.][0-9]+[.]') && \
         int(self.version.split('.')[1]) >= {{{}}}[p]))",
        always.join(", "),
        later.join(", "),
        later.join(", "),
    );
    (
        format!("!has(self.admissionControllers) || self.admissionControllers.all(p, {known})"),
        format!(
            "'admissionControllers: kube-apiserver ' + self.version + ' has no usable plugin ' + \
             self.admissionControllers.filter(p, !{known})[0]"
        ),
    )
}
