//! The keys that encrypt a tenant's Secrets at rest.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::{ZeroizeOnDrop, Zeroizing};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// Length of a secretbox key in bytes.
const KEY_LENGTH: usize = 32;

/// The API server's `EncryptionConfiguration` with its keys, kept byte for byte; `Debug` does not
/// show it.
///
/// secretbox, because AES-GCM binds a ciphertext to its full etcd key, which a move to another
/// prefix changes. There is no `identity` provider: everything is encrypted from birth.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKeys(Zeroizing<String>);

/// Why an encryption configuration cannot be used. Never quotes it, since it holds the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    /// Not YAML of the expected shape.
    #[error(
        "it is not an EncryptionConfiguration of secrets with providers secretbox and identity"
    )]
    Shape,
    /// No secretbox key in it.
    #[error("it has no secretbox key")]
    NoKey,
    /// A key without a name, or that is not 32 bytes in base64.
    #[error("a secretbox key in it has no name or is not 32 bytes in base64")]
    BadKey,
}

impl EncryptionKeys {
    /// Makes a configuration with one new key.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate() -> Result<Self, stoker_pki::Error> {
        let key = stoker_pki::encryption_key()?;
        let encoded = Zeroizing::new(STANDARD.encode(key.as_ref()));
        Ok(Self(Zeroizing::new(format!(
            "apiVersion: {API_VERSION}
kind: {KIND}
resources:
- resources:
  - secrets
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: {}
",
            encoded.as_str()
        ))))
    }

    /// Reads an existing configuration. More keys and providers `identity` are accepted, so that a
    /// rotation by hand is possible.
    ///
    /// # Errors
    /// [`EncryptionError`]
    pub fn from_yaml(text: &str) -> Result<Self, EncryptionError> {
        let configuration: Configuration =
            serde_saphyr::from_str(text).map_err(|_| EncryptionError::Shape)?;
        if configuration.api_version != API_VERSION
            || configuration.kind != KIND
            || !configuration.resources.iter().any(Resources::holds_secrets)
        {
            return Err(EncryptionError::Shape);
        }
        let providers = configuration
            .resources
            .iter()
            .flat_map(|entry| &entry.providers);
        let boxes = providers.filter_map(|provider| provider.secretbox.as_ref());
        let mut keys = boxes.flat_map(|secretbox| &secretbox.keys).peekable();
        if keys.peek().is_none() {
            return Err(EncryptionError::NoKey);
        }
        for key in keys {
            let bytes = STANDARD.decode(&key.secret).map(Zeroizing::new);
            if key.name.is_empty() || bytes.map_or(0, |bytes| bytes.len()) != KEY_LENGTH {
                return Err(EncryptionError::BadKey);
            }
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The configuration as YAML.
    #[must_use]
    pub fn as_yaml(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKeys([redacted])")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

impl Resources {
    fn holds_secrets(&self) -> bool {
        self.resources.iter().any(|resource| resource == "secrets")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    secretbox: Option<Secretbox>,
    #[serde(rename = "identity")]
    _identity: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secretbox {
    keys: Vec<Key>,
}

#[derive(Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}
