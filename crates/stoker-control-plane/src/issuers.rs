//! Who issues the tokens of a tenant's service accounts.

use stoker_api::arguments::{Argument, Component};
use stoker_api::tenant::Tenant;

/// The argument by which people name issuers in place of all others.
const ISSUER: &str = "--service-account-issuer";

/// The issuers, each once: the first signs, the others are believed too.
///
/// First those asked for, then the tenant's name under the base domain, which is unique to it, then
/// that of every cluster of this domain: tokens from before an issuer was asked for, or the operator
/// had a base domain, go on working. None of them lets anybody else in: the tenant's own keys sign.
/// Issuers in `extraArgs` replace all of these.
pub(crate) fn issuers(tenant: &Tenant, stable_name: Option<&str>) -> Vec<String> {
    let asked = tenant.deployment.extra_args.of(Component::ApiServer).iter();
    let asked = asked.filter_map(|text| Argument::parse(Component::ApiServer, text).ok());
    let named = asked.filter(|argument| argument.name == ISSUER);
    let replaced: Vec<String> = named.map(|argument| argument.value).collect();
    if !replaced.is_empty() {
        return replaced;
    }
    let stable = stable_name.map(|host| format!("https://{host}"));
    let ours = stable.into_iter().chain([common(tenant)]);
    let mut all = Vec::new();
    for issuer in tenant.service_account_issuers.iter().cloned().chain(ours) {
        if !all.contains(&issuer) {
            all.push(issuer);
        }
    }
    all
}

/// Where the discovery document says that the keys are: below the issuer that signs. Whoever has
/// them elsewhere says so by `--service-account-jwks-uri`.
///
/// Left out, kube-apiserver builds it from the pod's address; and it takes nothing but https
/// (`k8s.io/kubernetes/pkg/serviceaccount/openidmetadata.go`).
pub(crate) fn keys_uri(tenant: &Tenant, issuers: &[String]) -> String {
    let signs = issuers.iter().find(|issuer| issuer.starts_with("https://"));
    let base = signs.cloned().unwrap_or_else(|| common(tenant));
    format!("{}/openid/v1/jwks", base.trim_end_matches('/'))
}

/// The issuer of every cluster of this domain that has no other.
fn common(tenant: &Tenant) -> String {
    format!(
        "https://kubernetes.default.svc.{}",
        tenant.network.cluster_domain
    )
}
