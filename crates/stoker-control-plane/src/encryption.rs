//! The keys that encrypt what a tenant stores, and how they change.

mod goal;
mod leftover;
mod next;
mod scheme;
mod state;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use stoker_api::v1alpha1::Encryption;
use zeroize::Zeroizing;

pub use goal::Refusal;
pub use leftover::Leftover;
pub use next::{Advance, Observed, Servers, Step, Stored};
use scheme::{Key, Provider, Scheme, render};
use state::State;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";
/// Length of every provider's key in bytes.
const KEY_LENGTH: usize = 32;

/// The API server's `EncryptionConfiguration` with its keys; `Debug` does not show it.
///
/// secretbox unless told otherwise, because AES-GCM and KMS bind a ciphertext to its full etcd key, which a move to
/// another prefix changes. At rest there is no `identity` provider: what is encrypted is so from birth.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKeys {
    text: Zeroizing<String>,
    /// `None` for one written by hand, which is kept byte for byte.
    state: Option<State>,
}

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
    #[error("a key in it has no name or is not 32 bytes in base64")]
    BadKey,
    /// The record of its changes cannot be read.
    #[error("the record of its changes cannot be read")]
    State,
}

impl EncryptionKeys {
    /// Makes a configuration as it is wanted, with one new key.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate(wanted: &Encryption) -> Result<Self, stoker_pki::Error> {
        let key = new_key("key1".to_owned())?;
        let provider = Provider::new(wanted.provider, Some(key.clone()), wanted.kms.clone())
            // A checked spec has a plugin with this provider.
            .unwrap_or(Provider::Secretbox(key));
        let mut state = State::of(Scheme {
            provider,
            resources: wanted.resources.iter().cloned().collect(),
            generation: wanted.key_generation,
        });
        if *wanted != Encryption::default() {
            (state.revision, state.since) = (1, 1);
        }
        Ok(Self::of(state))
    }

    fn of(state: State) -> Self {
        let text = render(&state.rules(), state.revision);
        Self {
            text,
            state: Some(state),
        }
    }

    /// Reads an existing configuration, and the record of its changes if there is one: then the configuration follows
    /// from the record. Without one more keys and providers `identity` are accepted, as people may have rotated keys by
    /// hand.
    ///
    /// # Errors
    /// [`EncryptionError`]
    pub fn read(text: &str, record: Option<&str>) -> Result<Self, EncryptionError> {
        match record {
            Some(record) => Self::from_record(record),
            None => Self::from_yaml(text),
        }
    }

    fn from_record(record: &str) -> Result<Self, EncryptionError> {
        let state: State = serde_json::from_str(record).map_err(|_| EncryptionError::State)?;
        let are_good = state
            .providers()
            .filter_map(Provider::key)
            .all(Key::is_good);
        if !are_good {
            return Err(EncryptionError::BadKey);
        }
        Ok(Self::of(state))
    }

    fn from_yaml(text: &str) -> Result<Self, EncryptionError> {
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
        let keys: Vec<&Key> = boxes.flat_map(|secretbox| &secretbox.keys).collect();
        let first = *keys.first().ok_or(EncryptionError::NoKey)?;
        if !keys.iter().all(|key| key.is_good()) {
            return Err(EncryptionError::BadKey);
        }
        let born = Self::of(State::of(Scheme {
            provider: Provider::Secretbox(first.clone()),
            resources: ["secrets".to_owned()].into(),
            generation: 0,
        }));
        if born.as_yaml() == text {
            return Ok(born);
        }
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            state: None,
        })
    }

    /// The configuration as YAML.
    #[must_use]
    pub fn as_yaml(&self) -> &str {
        &self.text
    }

    /// The record of its changes, JSON with the keys in it; `None` while it is as made at birth.
    #[must_use]
    pub fn record(&self) -> Option<Zeroizing<String>> {
        let state = self.state.as_ref().filter(|state| state.revision > 0)?;
        // Strings in structs always serialize.
        Some(Zeroizing::new(
            serde_json::to_string(state).unwrap_or_default(),
        ))
    }

    /// Counts its changes.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.revision)
    }

    /// The revision from which on API servers serve the same.
    #[must_use]
    pub fn served_since(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.since)
    }

    /// How an API server that serves it names it
    /// (`apiserver_encryption_config_controller_last_config_info`, `k8s.io/apiserver` 0.34 and later).
    #[must_use]
    pub fn hash(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(self.as_yaml())))
    }

    /// Whether it may be the change of `before` that comes next: one more, and of the same keys.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        let (Some(after), Some(before)) = (&self.state, &before.state) else {
            return false;
        };
        let known = |provider: &Provider| before.providers().any(|old| old.is_like(provider));
        after.revision == before.revision + 1 && after.providers().any(known)
    }

    /// What it encrypts with, in a few words without a key.
    #[must_use]
    pub fn describe(&self) -> String {
        let Some(state) = &self.state else {
            return "a configuration written by hand".to_owned();
        };
        let scheme = |scheme: &Scheme| {
            let resources: Vec<_> = scheme.resources.iter().map(String::as_str).collect();
            let name = match &scheme.provider {
                Provider::Kms(plugin) => &plugin.name,
                Provider::Secretbox(key) | Provider::Aescbc(key) | Provider::Aesgcm(key) => {
                    &key.name
                }
            };
            let kind = scheme.provider.kind().name();
            format!("{} with {kind} {name}", resources.join(", "))
        };
        match &state.change {
            None => scheme(&state.scheme),
            Some(change) => format!("{}, before {}", scheme(&change.to), scheme(&state.scheme)),
        }
    }
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKeys([redacted])")
    }
}

fn new_key(name: String) -> Result<Key, stoker_pki::Error> {
    let bytes = stoker_pki::encryption_key()?;
    let secret = STANDARD.encode(bytes.as_ref());
    Ok(Key { name, secret })
}

impl Key {
    fn is_good(&self) -> bool {
        let bytes = STANDARD.decode(&self.secret).map(Zeroizing::new);
        !self.name.is_empty() && bytes.map_or(0, |bytes| bytes.len()) == KEY_LENGTH
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
    providers: Vec<HandWritten>,
}

impl Resources {
    fn holds_secrets(&self) -> bool {
        self.resources.iter().any(|resource| resource == "secrets")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HandWritten {
    secretbox: Option<Secretbox>,
    #[serde(rename = "identity")]
    _identity: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secretbox {
    keys: Vec<Key>,
}

#[cfg(test)]
mod tests;
