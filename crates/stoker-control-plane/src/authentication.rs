//! Who is authenticated how: the API server's `AuthenticationConfiguration`, which it reloads.
//!
//! What it would refuse is refused before: by a configuration that it cannot use a running API server
//! goes on as it was, and the next one does not start.

mod expression;

use std::collections::BTreeSet;

use serde::Serialize;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{Authentication, ClaimMappings, JwtAuthenticator, UserValidationRule};
use stoker_pki::certificate_count;

use crate::issuers::issuers;

pub use expression::InvalidExpression;
use expression::{Expression, Variable, Wanted};

/// First minor whose kube-apiserver reads `AuthenticationConfiguration` as `v1`; older ones read
/// `v1beta1` (`k8s.io/apiserver/pkg/apis/apiserver/v1/register.go` of 0.33 and 0.34).
const AUTHENTICATION_V1: u32 = 34;

/// The only paths that are answered without credentials: health, and what `kubeadm join` reads
/// before it trusts the cluster. The match is exact, and each still needs RBAC.
const ANONYMOUS_PATHS: [&str; 4] = [
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
    "/healthz",
    "/livez",
    "/readyz",
];

/// No issuer makes somebody what only certificates and tokens of the cluster make: `system:masters`
/// passes by every authorizer, the write freeze too.
const OWN_USERS: (&str, &str) = (
    "!user.username.startsWith('system:')",
    "names that begin with system: are not for an issuer to give",
);
const OWN_GROUPS: (&str, &str) = (
    "user.groups.all(group, !group.startsWith('system:'))",
    "groups that begin with system: are not for an issuer to give",
);

/// Why an API server would refuse `spec.kubernetes.authentication`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum InvalidAuthentication {
    #[error(
        "spec.kubernetes.authentication.jwt[{0}].issuer.certificateAuthority is no PEM certificate"
    )]
    CertificateAuthority(usize),
    #[error(
        "spec.kubernetes.authentication.jwt[{index}].issuer.url: {url} issues this cluster's own tokens"
    )]
    OwnIssuer { index: usize, url: String },
    #[error("spec.kubernetes.authentication.jwt[{index}].{field} says the same twice: {what}")]
    Twice {
        index: usize,
        field: &'static str,
        what: String,
    },
    #[error("spec.kubernetes.authentication.jwt[{index}].{field}: {source}")]
    Expression {
        index: usize,
        field: &'static str,
        source: InvalidExpression,
    },
    #[error(
        "spec.kubernetes.authentication.jwt[{0}]: claims.email is the username, so claims.email_verified must be asked for in claimMappings.username.expression, extra or claimValidationRules"
    )]
    EmailNotVerified(usize),
}

/// Checks what CEL could not at admission. `stable_name` is the tenant's name under the operator's base domain.
///
/// # Errors
/// What kube-apiserver would refuse to start by.
pub fn check_authentication(
    tenant: &Tenant,
    stable_name: Option<&str>,
) -> Result<(), InvalidAuthentication> {
    let own = issuers(tenant, stable_name);
    for (index, jwt) in tenant.authentication.jwt.iter().enumerate() {
        let issuer = &jwt.issuer;
        if own.contains(&issuer.url) {
            let url = issuer.url.clone();
            return Err(InvalidAuthentication::OwnIssuer { index, url });
        }
        if let Some(pem) = &issuer.certificate_authority
            && !certificate_count(pem).is_ok_and(|count| count > 0)
        {
            return Err(InvalidAuthentication::CertificateAuthority(index));
        }
        unique(index, jwt)?;
        expressions(index, jwt)?;
    }
    Ok(())
}

fn unique(index: usize, jwt: &JwtAuthenticator) -> Result<(), InvalidAuthentication> {
    let rules = &jwt.claim_validation_rules;
    let claims = rules.iter().filter_map(|rule| rule.claim.as_deref());
    let conditions = rules.iter().filter_map(|rule| rule.expression.as_deref());
    let users = jwt.user_validation_rules.iter();
    let users = users.map(|rule| rule.expression.as_str());
    let twice = |field| {
        move |what: &str| InvalidAuthentication::Twice {
            index,
            field,
            what: what.to_owned(),
        }
    };
    let among_claims = repeated(claims).or_else(|| repeated(conditions));
    among_claims.map_or(Ok(()), |what| Err(twice("claimValidationRules")(what)))?;
    repeated(users).map_or(Ok(()), |what| Err(twice("userValidationRules")(what)))
}

fn repeated<'a>(mut texts: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    texts.find(|text| !seen.insert(*text))
}

fn expressions(index: usize, jwt: &JwtAuthenticator) -> Result<(), InvalidAuthentication> {
    let read = |field: &'static str, text: &str, variable, wanted| {
        Expression::parse(text, variable, wanted).map_err(|source| {
            InvalidAuthentication::Expression {
                index,
                field,
                source,
            }
        })
    };
    let claims = |field, text: &str| read(field, text, Variable::Claims, Wanted::Text);
    let mut verifies = false;
    let mut by_email = false;
    for rule in &jwt.claim_validation_rules {
        if let Some(text) = &rule.expression {
            let field = "claimValidationRules";
            let rule = read(field, text, Variable::Claims, Wanted::Truth)?;
            verifies |= rule.selects("email_verified");
        }
    }
    let mappings = &jwt.claim_mappings;
    if let Some(text) = &mappings.username.expression {
        let name = claims("claimMappings.username", text)?;
        by_email = name.selects("email");
        verifies |= name.selects("email_verified");
    }
    for (field, text) in others(mappings) {
        claims(field, text)?;
    }
    for extra in &mappings.extra {
        let value = claims("claimMappings.extra", &extra.value_expression)?;
        verifies |= value.selects("email_verified");
    }
    for rule in &jwt.user_validation_rules {
        let field = "userValidationRules";
        read(field, &rule.expression, Variable::User, Wanted::Truth)?;
    }
    if by_email && !verifies {
        return Err(InvalidAuthentication::EmailNotVerified(index));
    }
    Ok(())
}

fn others(mappings: &ClaimMappings) -> impl Iterator<Item = (&'static str, &str)> {
    let groups = mappings.groups.as_ref();
    let groups = groups.and_then(|groups| groups.expression.as_deref());
    let uid = mappings.uid.as_ref();
    let uid = uid.and_then(|uid| uid.expression.as_deref());
    let fields = [("claimMappings.groups", groups), ("claimMappings.uid", uid)];
    fields
        .into_iter()
        .filter_map(|(field, text)| Some((field, text?)))
}

/// The configuration as YAML.
pub(crate) fn authentication(tenant: &Tenant) -> String {
    let group_version = if tenant.version.minor >= AUTHENTICATION_V1 {
        "v1"
    } else {
        "v1beta1"
    };
    let conditions = ANONYMOUS_PATHS.map(|path| Path { path });
    let configuration = Configuration {
        api_version: format!("apiserver.config.k8s.io/{group_version}"),
        kind: "AuthenticationConfiguration",
        jwt: authenticators(&tenant.authentication),
        anonymous: Anonymous {
            enabled: true,
            conditions,
        },
    };
    // Strings in structs always serialize.
    serde_saphyr::to_string(&configuration).unwrap_or_default()
}

fn authenticators(asked: &Authentication) -> Vec<JwtAuthenticator> {
    asked
        .jwt
        .iter()
        .map(|asked| {
            let mut jwt = asked.clone();
            let rules = &mut jwt.user_validation_rules;
            for (expression, message) in [OWN_USERS, OWN_GROUPS] {
                // Twice the same is refused.
                rules.retain(|rule| rule.expression != expression);
                rules.push(UserValidationRule {
                    expression: expression.to_owned(),
                    message: message.to_owned(),
                });
            }
            jwt
        })
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    api_version: String,
    kind: &'static str,
    jwt: Vec<JwtAuthenticator>,
    anonymous: Anonymous,
}

#[derive(Serialize)]
struct Anonymous {
    enabled: bool,
    conditions: [Path; 4],
}

#[derive(Serialize)]
struct Path {
    path: &'static str,
}
