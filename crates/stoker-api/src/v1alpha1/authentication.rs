//! `spec.kubernetes.authentication`: who is let in beside certificates and the cluster's own tokens.
//!
//! Field by field `AuthenticationConfiguration.jwt` (`k8s.io/apiserver/pkg/apis/apiserver/v1`), with
//! the rules that its API server would refuse to start by.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::is_default;

/// `https`, a host with perhaps a port, perhaps a path; no user, query or fragment.
pub(super) const HTTPS: &str = "^https://([-.a-zA-Z0-9]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?\
     (/([-A-Za-z0-9._~!$&()*+,;=:@/]|%[0-9A-Fa-f]{2})*)?$";
pub(super) const HTTPS_MESSAGE: &str = "an issuer is an https URL without user, query and fragment";

/// A domain and a path, in lower case.
const EXTRA_KEY: &str =
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[-a-z0-9/._~]+$";

const CLAIM_OR_EXPRESSION: &str = "give either claim or expression";

/// Who is let in beside certificates and the cluster's own tokens.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Issuers of tokens, as in `AuthenticationConfiguration`. Changes restart nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new(
        "self.all(a, self.exists_one(b, a.issuer.url == b.issuer.url)) && \
         self.all(a, !has(a.issuer.discoveryURL) || \
         self.exists_one(b, has(b.issuer.discoveryURL) && a.issuer.discoveryURL == b.issuer.discoveryURL))"
    ).message("jwt: every issuer has a url and a discoveryURL of its own"))]
    pub jwt: Vec<JwtAuthenticator>,
}

/// One issuer, and who its tokens stand for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JwtAuthenticator {
    /// Who issues.
    pub issuer: Issuer,
    /// What a token must say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    /// Whom a token stands for.
    pub claim_mappings: ClaimMappings,
    /// What must hold of that user. Names and groups with `system:` are always refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub user_validation_rules: Vec<UserValidationRule>,
}

/// Who issues tokens, and for whom.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("size(self.audiences) == 1 || has(self.audienceMatchPolicy)")
        .message("several audiences need audienceMatchPolicy: MatchAny"),
    validation = Rule::new(
        "!has(self.discoveryURL) || self.discoveryURL != self.url && \
         self.discoveryURL != self.url + '/' && self.discoveryURL + '/' != self.url"
    ).message("discoveryURL: leave it out where it is url")
)]
pub struct Issuer {
    /// What the claim `iss` says.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new(format!("self.matches(r'{HTTPS}')")).message(HTTPS_MESSAGE))]
    pub url: String,
    /// Where its configuration is, if not below `url`.
    #[serde(
        default,
        rename = "discoveryURL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new(format!("self.matches(r'{HTTPS}')")).message(HTTPS_MESSAGE))]
    pub discovery_url: Option<String>,
    /// PEM; the system's authorities when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub certificate_authority: Option<String>,
    /// Of which a token must name one.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Needed for several audiences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience_match_policy: Option<AudienceMatchPolicy>,
}

/// How audiences are compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the name is upstream's own")]
pub enum AudienceMatchPolicy {
    MatchAny,
}

/// What a token must say.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claim) != has(self.expression)").message(CLAIM_OR_EXPRESSION),
    validation = Rule::new("has(self.claim) ? !has(self.message) : !has(self.requiredValue)")
        .message("requiredValue goes with claim, message with expression")
)]
pub struct ClaimValidationRule {
    /// Name of a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub required_value: Option<String>,
    /// CEL over `claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
    /// What is said when it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Whom a token stands for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimMappings {
    /// The user's name.
    pub username: PrefixedClaim,
    /// Its groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<PrefixedClaim>,
    /// Its uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Claim>,
    /// More about it, for authorizers and admission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub extra: Vec<ExtraMapping>,
}

/// A claim behind a prefix, or what an expression makes of all.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claim) != has(self.expression)").message(CLAIM_OR_EXPRESSION),
    validation = Rule::new("has(self.claim) == has(self.prefix)").message(
        "a claim needs a prefix, '' for none; an expression has none"
    )
)]
pub struct PrefixedClaim {
    /// Name of a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// Goes before its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub prefix: Option<String>,
    /// CEL over `claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
}

/// A claim, or what an expression makes of all.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claim) != has(self.expression)").message(CLAIM_OR_EXPRESSION)
)]
pub struct Claim {
    /// Name of a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// CEL over `claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
}

/// One more thing about a user.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExtraMapping {
    /// Its key, such as `example.com/team`.
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new(format!(
        "self.matches('{EXTRA_KEY}') && !self.matches('^([^/]*[.])?(kubernetes|k8s)[.]io/')"
    )).message(
        "an extra key is a domain, not of Kubernetes, and a path in lower case: example.com/team"
    ))]
    pub key: String,
    /// CEL over `claims`.
    #[schemars(length(min = 1, max = 4096))]
    pub value_expression: String,
}

/// What must hold of a user.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserValidationRule {
    /// CEL over `user`.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
    /// What is said when it does not hold.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(length(max = 1024))]
    pub message: String,
}
