//! From a generator, a tenant and what was read to the Secret. Pure but for the key of a new certificate.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::Value;
use stoker_api::labels::{GENERATED_BY, GENERATED_FOR};
use stoker_api::v1alpha1::{CompoundValue, KubeconfigGenerator, MASTERS, TenantControlPlane};
use stoker_control_plane::entry::{CA_CERTIFICATE, CA_KEY, GENERATED_KUBECONFIG};
use stoker_control_plane::generated_kubeconfig;
use stoker_pki::{
    Authority, KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, LeafRequest, LeafState,
    LeafUsage, kubeconfig, leaf_state, not_after, parse_kubeconfig,
};
use time::{Duration, OffsetDateTime};

use super::dereference::Found;

/// What a kubeconfig is made from, apart from what is read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Incarnation of the tenant.
    pub tenant: String,
    /// Common name of the certificate.
    pub user: String,
    /// Its organizations.
    pub groups: BTreeSet<String>,
    /// Entry of the admin kubeconfig that has the address.
    pub endpoint_from: String,
    /// From issue to end.
    pub lifetime: Duration,
}

/// Why a selected tenant has no kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("the tenant's admin kubeconfig has no {0} yet")]
    NotYet(String),
    #[error("{0} names no text in the TenantControlPlane")]
    NotFound(String),
    #[error(
        "the group system:masters is not given: it passes by authorization and could not be taken away again"
    )]
    Masters,
    #[error(
        "the Secret {0} is there and was not made for this generator: rename the generator or remove the Secret"
    )]
    Foreign(String),
    #[error("the tenant's {what} cannot be used: {why}")]
    Unusable { what: &'static str, why: String },
    #[error("the API server of the management cluster refused: {0}")]
    Refused(String),
}

impl Problem {
    /// Whether it goes away by itself.
    #[must_use]
    pub fn is_wait(&self) -> bool {
        matches!(self, Self::NotYet(_))
    }
}

/// A kubeconfig as it should be.
pub struct Wanted {
    /// With the kubeconfig.
    pub secret: Secret,
    /// When its certificate is to be issued anew.
    pub renew_at: OffsetDateTime,
}

/// What `generator` asks of `tenant`.
///
/// # Errors
/// What it asks for is not there or not given.
pub fn inputs(
    tenant: &TenantControlPlane,
    generator: &KubeconfigGenerator,
) -> Result<Inputs, Problem> {
    let spec = &generator.spec;
    let definition = serde_json::to_value(tenant).unwrap_or_default();
    let groups = spec.groups.iter().map(|group| value(group, &definition));
    let groups: BTreeSet<String> = groups.collect::<Result<_, _>>()?;
    if groups.contains(MASTERS) {
        return Err(Problem::Masters);
    }
    let endpoint_from = &spec.control_plane_endpoint_from;
    let same_address = endpoint_from.strip_prefix("super-");
    Ok(Inputs {
        tenant: tenant.uid().unwrap_or_default(),
        user: value(&spec.user, &definition)?,
        groups,
        endpoint_from: same_address.unwrap_or(endpoint_from).to_owned(),
        lifetime: Duration::seconds(spec.expiration_seconds),
    })
}

fn value(wanted: &CompoundValue, definition: &Value) -> Result<String, Problem> {
    if let Some(text) = &wanted.string_value {
        return Ok(text.clone());
    }
    let path = wanted.from_definition.as_deref().unwrap_or_default();
    let found = path
        .split('.')
        .try_fold(definition, |at, step| at.get(step));
    let text = found
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or_else(|| Problem::NotFound(path.to_owned()))
}

/// The Secret. A certificate that is good stays, whatever else in the kubeconfig changes.
///
/// # Errors
/// Something that it is made from is missing or unusable.
pub fn build(
    tenant: &TenantControlPlane,
    generator: &str,
    inputs: &Inputs,
    found: &Found,
    now: OffsetDateTime,
) -> Result<Wanted, Problem> {
    let existing = existing(tenant, generator, found)?;
    let unusable = |what| {
        move |error: stoker_pki::Error| Problem::Unusable {
            what,
            why: error.to_string(),
        }
    };
    let template = entry(found.admin.as_ref(), &inputs.endpoint_from)
        .ok_or_else(|| Problem::NotYet(inputs.endpoint_from.clone()))?;
    let template = parse_kubeconfig(&template).map_err(unusable("admin kubeconfig"))?;
    let authority = [CA_CERTIFICATE, CA_KEY].map(|name| entry(found.authority.as_ref(), name));
    let [Some(certificate), Some(key)] = authority else {
        return Err(Problem::NotYet("certificate authority".to_owned()));
    };
    let authority = Authority::from_pem(&certificate, &key);
    let authority = authority.map_err(unusable("certificate authority"))?;
    let (leaf, renew_at) =
        certificate_of(inputs, existing, &authority, now).map_err(unusable("authority"))?;
    let text = kubeconfig(&KubeconfigRequest {
        cluster: template.cluster,
        server: template.server,
        tls_server_name: template.tls_server_name,
        authority: authority.certificate().to_owned(),
        user: generator.to_owned(),
        credentials: KubeconfigCredentials::Inline(leaf),
    });
    Ok(Wanted {
        secret: generated_kubeconfig(tenant, generator, &text),
        renew_at,
    })
}

/// The Secret that is there, if it is ours: controlled by this tenant, or at least labelled as made for it by this
/// generator.
fn existing<'a>(
    tenant: &TenantControlPlane,
    generator: &str,
    found: &'a Found,
) -> Result<Option<&'a Secret>, Problem> {
    let Some(secret) = &found.existing else {
        return Ok(None);
    };
    let labels = secret.labels();
    let made_by = labels.get(GENERATED_BY).map(String::as_str);
    let made_for = labels.get(GENERATED_FOR);
    let labelled = made_by == Some(generator) && made_for == Some(&tenant.name_any());
    let mut owners = secret.owner_references().iter();
    let controller = owners.find(|owner| owner.controller == Some(true));
    let ours = controller.map_or(labelled, |owner| Some(&owner.uid) == tenant.uid().as_ref());
    if ours {
        Ok(Some(secret))
    } else {
        Err(Problem::Foreign(secret.name_any()))
    }
}

/// The certificate that is there, if it is as wanted and ends no later than a new one would; else a new one. And when it
/// is to be looked at again.
fn certificate_of(
    inputs: &Inputs,
    existing: Option<&Secret>,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<(KeyedCertificate, OffsetDateTime), stoker_pki::Error> {
    let request = LeafRequest {
        common_name: inputs.user.clone(),
        organizations: inputs.groups.iter().cloned().collect(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: inputs.lifetime,
    };
    let judge = |leaf: &KeyedCertificate| {
        let (certificate, key) = (&leaf.certificate, leaf.key.as_pem());
        match leaf_state(certificate, key, &request, authority, now) {
            LeafState::Valid { renew_at } => Some(renew_at),
            LeafState::Reissue(_) => None,
        }
    };
    let kept = entry(existing, GENERATED_KUBECONFIG)
        .and_then(|text| parse_kubeconfig(&text).ok())
        .map(|facts| KeyedCertificate {
            certificate: facts.certificate,
            key: facts.key,
        });
    if let Some(leaf) = kept
        && let Some(renew_at) = judge(&leaf)
        && not_after(&leaf.certificate).is_ok_and(|end| end <= now + inputs.lifetime)
    {
        return Ok((leaf, renew_at));
    }
    let leaf = authority.issue(&request, now)?;
    // It is good: it has just been issued. If ever not, the next pass will tell.
    let renew_at = judge(&leaf).unwrap_or(now);
    Ok((leaf, renew_at))
}

fn entry(secret: Option<&Secret>, name: &str) -> Option<String> {
    let bytes = &secret?.data.as_ref()?.get(name)?.0;
    String::from_utf8(bytes.clone()).ok()
}

#[cfg(test)]
mod tests;
