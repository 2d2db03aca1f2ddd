//! The tenant's client certificate in the pool, signed by the pool's authority.

use stoker_api::StorageId;
use stoker_api::tenant::Tenant;
use stoker_control_plane::{ExistingSecrets, Names, entry, storage_client_request};
use stoker_pki::{Authority, KeyedCertificate, LeafState, PrivateKey, leaf_state, renewal};
use time::OffsetDateTime;

/// The certificate in the tenant's Secret while it is good, else a new one; and when to renew it.
///
/// # Errors
/// The pool's authority has expired, or the machine has no randomness.
pub fn storage_client(
    tenant: &Tenant,
    id: &StorageId,
    authority: &Authority,
    existing: &ExistingSecrets,
    now: OffsetDateTime,
) -> Result<(KeyedCertificate, OffsetDateTime), stoker_pki::Error> {
    let request = storage_client_request(id);
    if let Some(current) = stored(tenant, existing)
        && let LeafState::Valid { renew_at } = leaf_state(
            &current.certificate,
            current.key.as_pem(),
            &request,
            authority,
            now,
        )
    {
        return Ok((current, renew_at));
    }
    let issued = authority.issue(&request, now)?;
    let renew_at = renewal(&issued.certificate, authority, now);
    Ok((issued, renew_at))
}

fn stored(tenant: &Tenant, existing: &ExistingSecrets) -> Option<KeyedCertificate> {
    let secret = existing.get(&Names::of(tenant).datastore_certificate)?;
    let text = |entry: &str| String::from_utf8(secret.get(entry)?.clone()).ok();
    Some(KeyedCertificate {
        certificate: text(entry::DATASTORE_CERTIFICATE)?,
        key: PrivateKey::from_pem(&text(entry::DATASTORE_KEY)?).ok()?,
    })
}
