//! The identity of a tenant in a pool, from which its prefix, etcd user and role follow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of randomness in an id.
const BYTES: usize = 16;

/// Length of an id in characters: two lowercase hexadecimal digits per byte.
pub const STORAGE_ID_LENGTH: usize = 2 * BYTES;

/// A random 128-bit identity in the pool, written as 32 lowercase hexadecimal characters.
///
/// It is minted once per tenant and never reused. The etcd user and role carry it as their name and
/// the tenant's keys live under `/<id>/`. All ids have the same length and contain no `/`, so no
/// tenant's range can contain another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageId(String);

/// The text is not a storage id. It does not quote the text, which may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a storage id is exactly {STORAGE_ID_LENGTH} characters of 0-9 and a-f")]
pub struct InvalidStorageId;

impl StorageId {
    /// Mints a new id from the operating system's random source.
    ///
    /// # Errors
    /// Fails only when the operating system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes)))
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first bytes of every key of this tenant: `/<id>/`.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("/{}/", self.0)
    }

    /// The first key after this tenant's range: `/<id>0`, since `0` follows `/` in ASCII.
    #[must_use]
    pub fn range_end(&self) -> String {
        format!("/{}0", self.0)
    }

    /// The name of the etcd user, which is also the common name of the tenant's client certificate.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.0
    }

    /// The name of the etcd role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for StorageId {
    type Error = InvalidStorageId;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == STORAGE_ID_LENGTH && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidStorageId)
        }
    }
}

impl TryFrom<String> for StorageId {
    type Error = InvalidStorageId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_from(text.as_str())
    }
}

impl FromStr for StorageId {
    type Err = InvalidStorageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text)
    }
}

impl From<StorageId> for String {
    fn from(id: StorageId) -> Self {
        id.0
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_is_valid_and_new_each_time() {
        let first = StorageId::random().unwrap();
        assert_eq!(StorageId::try_from(first.as_str()), Ok(first.clone()));
        assert_ne!(first, StorageId::random().unwrap());
    }

    #[test]
    fn anything_else_is_refused() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(StorageId::try_from(good).is_ok());
        for bad in [
            "",
            "/",
            "root",
            &good[1..],
            &format!("{good}0"),
            &good.to_uppercase(),
            &format!("/{}", &good[1..]),
            &format!("{}/", &good[1..]),
            &format!("{}\0", &good[1..]),
            &format!("{}é", &good[2..]),
            &format!("{}g", &good[1..]),
            &format!(" {}", &good[1..]),
        ] {
            assert_eq!(StorageId::try_from(bad), Err(InvalidStorageId), "{bad:?}");
        }
    }

    #[test]
    fn serde_writes_a_string_and_validates_what_it_reads() {
        let id = StorageId::try_from("0123456789abcdef0123456789abcdef").unwrap();
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, "\"0123456789abcdef0123456789abcdef\"");
        assert_eq!(serde_json::from_str::<StorageId>(&text).unwrap(), id);
        assert!(serde_json::from_str::<StorageId>("\"/\"").is_err());
    }

    #[test]
    fn the_range_is_the_prefix_and_nothing_more() {
        let id = StorageId::try_from("0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(id.prefix(), "/0123456789abcdef0123456789abcdef/");
        assert_eq!(id.range_end(), "/0123456789abcdef0123456789abcdef0");
        assert_eq!(id.user(), id.as_str());
        assert_eq!(id.role(), id.as_str());
    }
}
