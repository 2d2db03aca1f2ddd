//! Sealing copies of keys, so that they can be kept where others may read: in the pool, in backups.
//!
//! ChaCha20-Poly1305 (RFC 8439) under one key of the provider's, with a random nonce per copy. What a copy is of
//! is authenticated with it, so that one cannot be passed off as another.
//!
//! ```text
//! sealed = "stoker-escrow-1 " ‖ key id, 16 hex digits ‖ " " ‖ nonce, 12 bytes ‖ ciphertext and tag
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const FORMAT: &str = "stoker-escrow-1 ";
const KEY_LENGTH: usize = 32;
const ID_LENGTH: usize = 16;

/// Why a copy could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EscrowError {
    /// The text is not a key.
    #[error("is not an escrow key: it must be 32 bytes in Base64")]
    NotAKey,
    /// The machine has no randomness.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The copy was sealed with another key.
    #[error("was sealed with the escrow key {0}, which is not the one at hand")]
    OtherKey(String),
    /// The copy is cut, changed, or of something else.
    #[error("is damaged, or a copy of something else")]
    Damaged,
}

/// The provider's key: whoever has it can read every copy. 32 random bytes, Base64 as text.
pub struct EscrowKey {
    key: LessSafeKey,
    id: String,
    text: Zeroizing<String>,
}

impl fmt::Debug for EscrowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EscrowKey({})", self.id)
    }
}

impl EscrowKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`EscrowError::NoRandomness`].
    pub fn generate() -> Result<Self, EscrowError> {
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        getrandom::fill(bytes.as_mut()).map_err(|_| EscrowError::NoRandomness)?;
        Self::from_text(&STANDARD.encode(*bytes))
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`EscrowError::NotAKey`].
    pub fn from_text(text: &str) -> Result<Self, EscrowError> {
        let text = text.trim();
        let decoded = STANDARD.decode(text).map_err(|_| EscrowError::NotAKey)?;
        let bytes = Zeroizing::new(decoded);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| EscrowError::NotAKey)?;
        let digest = Sha256::new()
            .chain_update("stoker escrow key id")
            .chain_update(bytes.as_slice())
            .finalize();
        Ok(Self {
            key: LessSafeKey::new(key),
            id: hex::encode(&digest[..ID_LENGTH / 2]),
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// The key as text.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.text
    }

    /// What names the key without giving it away: 16 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals `content` as a copy of `what`.
    ///
    /// # Errors
    /// [`EscrowError::NoRandomness`].
    pub fn seal(&self, what: &str, content: &[u8]) -> Result<Vec<u8>, EscrowError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| EscrowError::NoRandomness)?;
        let mut sealed = format!("{FORMAT}{} ", self.id).into_bytes();
        sealed.extend_from_slice(&nonce);
        let mut text = Zeroizing::new(content.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(what),
                text.as_mut_slice(),
            )
            .map_err(|_| EscrowError::Damaged)?;
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a copy of `what`.
    ///
    /// # Errors
    /// [`EscrowError::OtherKey`] or [`EscrowError::Damaged`].
    pub fn open(&self, what: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EscrowError> {
        let rest = sealed
            .strip_prefix(FORMAT.as_bytes())
            .ok_or(EscrowError::Damaged)?;
        let (id, rest) = rest
            .split_at_checked(ID_LENGTH)
            .ok_or(EscrowError::Damaged)?;
        if id != self.id.as_bytes() {
            let id = String::from_utf8_lossy(id).into_owned();
            return Err(EscrowError::OtherKey(id));
        }
        let (nonce, text) = rest
            .strip_prefix(b" ")
            .and_then(|rest| rest.split_first_chunk::<NONCE_LEN>())
            .ok_or(EscrowError::Damaged)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(what),
                text.as_mut_slice(),
            )
            .map_err(|_| EscrowError::Damaged)?
            .len();
        text.truncate(opened);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back_with_the_same_key_alone() {
        let key = EscrowKey::generate().unwrap();
        let sealed = key.seal("a", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        let again = EscrowKey::from_text(key.as_text()).unwrap();
        assert_eq!(again.open("a", &sealed).unwrap().as_slice(), b"secret");
        let other = EscrowKey::generate().unwrap();
        let refused = other.open("a", &sealed).unwrap_err();
        assert_eq!(refused, EscrowError::OtherKey(key.id().to_owned()));
    }

    #[test]
    fn a_copy_of_something_else_or_a_changed_one_is_refused() {
        let key = EscrowKey::generate().unwrap();
        let sealed = key.seal("a", b"secret").unwrap();
        assert_eq!(key.open("b", &sealed).unwrap_err(), EscrowError::Damaged);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("a", &changed).is_err(), "byte {at}");
            assert!(key.open("a", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn two_copies_of_the_same_differ() {
        let key = EscrowKey::generate().unwrap();
        assert_ne!(key.seal("a", b"x").unwrap(), key.seal("a", b"x").unwrap());
    }

    #[test]
    fn a_key_is_32_bytes_and_is_not_shown() {
        for text in ["", "c2hvcnQ=", "not base64"] {
            let refused = EscrowKey::from_text(text).unwrap_err();
            assert_eq!(refused, EscrowError::NotAKey, "{text}");
        }
        let key = EscrowKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(key.as_text()));
    }
}
