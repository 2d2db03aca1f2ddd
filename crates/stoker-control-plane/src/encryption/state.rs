//! What is durable of an encryption configuration and its changes: an entry beside the configuration, which follows from it.

use serde::{Deserialize, Serialize};

use super::scheme::{Phase, Provider, Rule, Scheme};

/// The keys, and how far a change is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    /// Counts every change of this; 0 is as at birth.
    pub(super) revision: u64,
    /// The revision from which on the same is served.
    pub(super) since: u64,
    /// In use; during a change the old one.
    pub(super) scheme: Scheme,
    /// What is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) change: Option<Change>,
}

/// One scheme takes the place of another.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) to: Scheme,
    pub(super) phase: Phase,
}

impl State {
    /// At birth.
    pub(super) fn of(scheme: Scheme) -> Self {
        Self {
            revision: 0,
            since: 0,
            scheme,
            change: None,
        }
    }

    /// What API servers are to serve.
    pub(super) fn rules(&self) -> Vec<Rule<'_, &Provider>> {
        match &self.change {
            None => self.scheme.rules(),
            Some(change) => self.scheme.rules_towards(&change.to, change.phase),
        }
    }

    /// Every provider whose key is kept.
    pub(super) fn providers(&self) -> impl Iterator<Item = &Provider> {
        let to = self.change.iter().map(|change| &change.to.provider);
        std::iter::once(&self.scheme.provider).chain(to)
    }
}
