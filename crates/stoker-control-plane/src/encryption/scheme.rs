//! What encrypts what: one scheme at rest, two while one takes the place of the other.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use stoker_api::v1alpha1::{Encryption, EncryptionProvider, KmsPlugin};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{API_VERSION, KIND};

/// In seconds, as kube-apiserver's own.
const KMS_TIMEOUT: i32 = 3;

/// A provider and what it encrypts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Scheme {
    pub(super) provider: Provider,
    pub(super) resources: BTreeSet<String>,
    /// `spec.kubernetes.encryption.keyGeneration` that it was made for.
    #[serde(default)]
    pub(super) generation: i64,
}

/// A provider with its key, or with the plugin that has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Provider {
    Secretbox(Key),
    Aescbc(Key),
    Aesgcm(Key),
    Kms(KmsPlugin),
}

/// A key of 32 bytes in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) secret: String,
}

impl Provider {
    /// With this key or plugin.
    pub(super) fn new(
        kind: EncryptionProvider,
        key: Option<Key>,
        kms: Option<KmsPlugin>,
    ) -> Option<Self> {
        Some(match kind {
            EncryptionProvider::Secretbox => Self::Secretbox(key?),
            EncryptionProvider::Aescbc => Self::Aescbc(key?),
            EncryptionProvider::Aesgcm => Self::Aesgcm(key?),
            EncryptionProvider::Kms => Self::Kms(kms?),
        })
    }

    pub(super) fn kind(&self) -> EncryptionProvider {
        match self {
            Self::Secretbox(_) => EncryptionProvider::Secretbox,
            Self::Aescbc(_) => EncryptionProvider::Aescbc,
            Self::Aesgcm(_) => EncryptionProvider::Aesgcm,
            Self::Kms(_) => EncryptionProvider::Kms,
        }
    }

    pub(super) fn plugin(&self) -> Option<&KmsPlugin> {
        match self {
            Self::Kms(plugin) => Some(plugin),
            _ => None,
        }
    }

    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Secretbox(key) | Self::Aescbc(key) | Self::Aesgcm(key) => Some(key),
            Self::Kms(_) => None,
        }
    }

    /// Whether one reads what the other has encrypted. Of plugins the name decides, which is stored with the values.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kms(one), Self::Kms(two)) => one.name == two.name,
            (one, two) => one == two,
        }
    }

    /// What begins every value that it has encrypted (`k8s.io/apiserver`, `pkg/server/options/encryptionconfig`).
    pub(super) fn mark(&self) -> String {
        let (version, name) = match self {
            Self::Kms(plugin) => ("v2", &plugin.name),
            Self::Secretbox(key) | Self::Aescbc(key) | Self::Aesgcm(key) => ("v1", &key.name),
        };
        format!("k8s:enc:{}:{version}:{name}:", self.kind().name())
    }

    fn render(&self, text: &mut String) {
        let kind = self.kind().name();
        // Writing to a string never fails.
        let _ = match self {
            Self::Kms(KmsPlugin {
                name,
                endpoint,
                timeout_seconds,
            }) => {
                let timeout = timeout_seconds.unwrap_or(KMS_TIMEOUT);
                write!(
                    text,
                    "  - {kind}:\n      apiVersion: v2\n      name: {name}\n      endpoint: {endpoint}\n      timeout: {timeout}s\n"
                )
            }
            Self::Secretbox(key) | Self::Aescbc(key) | Self::Aesgcm(key) => write!(
                text,
                "  - {kind}:\n      keys:\n      - name: {}\n        secret: {}\n",
                key.name, key.secret
            ),
        };
    }
}

/// Resources with their providers: the first writes, all read. `None` is `identity`: not encrypted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule<'a, P> {
    pub(super) resources: BTreeSet<&'a str>,
    pub(super) providers: Vec<Option<P>>,
}

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// API servers learn to read what the new one writes. Nothing is written with it yet.
    Reading,
    /// They write with the new one, and what is stored is rewritten.
    Writing,
    /// They do without the old one, whose key is kept until nothing was found of it once more.
    Leaving,
}

impl Scheme {
    /// At rest.
    pub(super) fn rules(&self) -> Vec<Rule<'_, &Provider>> {
        vec![Rule {
            resources: self.names(),
            providers: vec![Some(&self.provider)],
        }]
    }

    /// While `to` takes its place. Of a change provider or resources are another, never both
    /// ([`super::goal::goal`]): an API server takes a KMS plugin in one rule only.
    pub(super) fn rules_towards<'a>(
        &'a self,
        to: &'a Self,
        phase: Phase,
    ) -> Vec<Rule<'a, &'a Provider>> {
        if phase == Phase::Leaving {
            return to.rules();
        }
        let (old, new) = (self.names(), to.names());
        let (before, after) = (Some(&self.provider), Some(&to.provider));
        let groups = [
            (&old & &new, before, after),
            (&new - &old, None, after),
            (&old - &new, before, None),
        ];
        let of = |(resources, before, after): (_, Option<&'a Provider>, Option<&'a Provider>)| {
            let alike = match (before, after) {
                (Some(before), Some(after)) => before.is_like(after),
                (before, after) => before.is_none() && after.is_none(),
            };
            let providers = match phase {
                _ if alike => vec![after],
                Phase::Reading => vec![before, after],
                Phase::Writing | Phase::Leaving => vec![after, before],
            };
            Rule {
                resources,
                providers,
            }
        };
        let groups = groups.into_iter();
        groups
            .filter(|(resources, ..)| !resources.is_empty())
            .map(of)
            .collect()
    }

    fn names(&self) -> BTreeSet<&str> {
        self.resources.iter().map(String::as_str).collect()
    }

    /// Whether it is what is wanted.
    pub(super) fn serves(&self, wanted: &Encryption) -> bool {
        self.provider.kind() == wanted.provider
            && self.provider.plugin() == wanted.kms.as_ref()
            && self.generation == wanted.key_generation
            && self.resources == wanted.resources.iter().cloned().collect()
    }
}

/// The API server's `EncryptionConfiguration`.
pub(super) fn render(rules: &[Rule<'_, &Provider>], revision: u64) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    if revision > 0 {
        let _ = writeln!(text, "# revision {revision}");
    }
    let _ = write!(
        text,
        "apiVersion: {API_VERSION}\nkind: {KIND}\nresources:\n"
    );
    for rule in rules {
        text.push_str("- resources:\n");
        for resource in &rule.resources {
            let _ = writeln!(text, "  - {resource}");
        }
        text.push_str("  providers:\n");
        for provider in &rule.providers {
            match provider {
                Some(provider) => provider.render(&mut text),
                None => text.push_str("  - identity: {}\n"),
            }
        }
    }
    text
}
