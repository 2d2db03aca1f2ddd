//! To what a scheme changes first, on the way to what is wanted.

use std::collections::BTreeSet;

use stoker_api::v1alpha1::{Encryption, EncryptionProvider, KmsPlugin};

use super::scheme::{Provider, Scheme};

/// The next scheme, its key apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Goal {
    kind: EncryptionProvider,
    kms: Option<KmsPlugin>,
    resources: BTreeSet<String>,
    generation: i64,
    /// Only resources change.
    pub(super) keeps_key: bool,
}

/// Why there is none, though something else is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration was written by hand.
    ByHand,
    /// An API server takes a KMS plugin in one rule only, and resources that come or go need one of their own.
    ResourcesOfPlugin,
}

/// The next scheme after `from`, which is not what is `wanted`. Provider and resources change one after the other.
///
/// # Errors
/// There is no way.
pub(super) fn goal(from: &Scheme, wanted: &Encryption) -> Result<Goal, Refusal> {
    let resources: BTreeSet<String> = wanted.resources.iter().cloned().collect();
    let is_plugin = from.provider.plugin().is_some();
    let same_name = from.provider.plugin().map(|plugin| &plugin.name)
        == wanted.kms.as_ref().map(|plugin| &plugin.name);
    let keeps_key = from.provider.kind() == wanted.provider
        && same_name
        && from.generation == wanted.key_generation;
    let same_resources = from.resources == resources;
    let to_plugin = wanted.provider == EncryptionProvider::Kms;
    if is_plugin && to_plugin && !same_resources {
        return Err(Refusal::ResourcesOfPlugin);
    }
    if keeps_key || (to_plugin && !same_resources) {
        return Ok(Goal {
            kind: from.provider.kind(),
            kms: from.provider.plugin().cloned(),
            resources,
            generation: from.generation,
            keeps_key: true,
        });
    }
    Ok(Goal {
        kind: wanted.provider,
        kms: wanted.kms.clone(),
        resources: from.resources.clone(),
        generation: wanted.key_generation,
        keeps_key: false,
    })
}

impl Goal {
    /// Whether a change to `scheme` reaches it.
    pub(super) fn is_reached_by(&self, scheme: &Scheme) -> bool {
        let name = |plugin: Option<&KmsPlugin>| plugin.map(|plugin| plugin.name.clone());
        scheme.provider.kind() == self.kind
            && name(scheme.provider.plugin()) == name(self.kms.as_ref())
            && scheme.resources == self.resources
            && scheme.generation == self.generation
    }

    /// Whether it needs a key that is not there yet.
    pub(super) fn needs_key(&self) -> bool {
        !self.keeps_key && self.kind != EncryptionProvider::Kms
    }

    /// The scheme. `None` without a key that it needs, or without a plugin.
    pub(super) fn scheme(self, from: &Scheme, key: Option<super::scheme::Key>) -> Option<Scheme> {
        let provider = if self.keeps_key {
            from.provider.clone()
        } else {
            Provider::new(self.kind, key, self.kms)?
        };
        Some(Scheme {
            provider,
            resources: self.resources,
            generation: self.generation,
        })
    }
}
