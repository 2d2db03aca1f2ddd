//! What of the stored values a change has yet to replace, told by how they begin.

use super::EncryptionKeys;
use super::scheme::Scheme;

const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Where an API server stores a resource, where that is not under its name
/// (`k8s.io/kubernetes/pkg/kubeapiserver/default_storage_factory_builder.go`, `SpecialDefaultResourcePrefixes`).
const ELSEWHERE: [(&str, &str); 5] = [
    ("replicationcontrollers", "controllers"),
    ("endpoints", "services/endpoints"),
    ("services", "services/specs"),
    ("nodes", "minions"),
    ("ingresses.networking.k8s.io", "ingress"),
];

/// Tells the values that are left over.
#[derive(Debug)]
pub struct Leftover {
    /// How values begin that must not be anywhere.
    gone: Option<String>,
    /// Directories in which everything is encrypted.
    encrypted: Vec<String>,
    /// Directories in which nothing is.
    plain: Vec<String>,
}

impl Leftover {
    /// Whether a value that begins like this, under this key without the tenant's prefix, is left over.
    #[must_use]
    pub fn is(&self, key: &str, head: &[u8]) -> bool {
        let within = |directories: &[String]| {
            let mut directories = directories.iter();
            directories.any(|directory| key.starts_with(directory.as_str()))
        };
        let gone = self.gone.as_ref();
        if gone.is_some_and(|mark| head.starts_with(mark.as_bytes())) {
            return true;
        }
        let is_encrypted = head.starts_with(ENCRYPTED);
        (within(&self.encrypted) && !is_encrypted) || (within(&self.plain) && is_encrypted)
    }
}

impl EncryptionKeys {
    /// What the change under way is to replace, if one is.
    #[must_use]
    pub fn leftover(&self) -> Option<Leftover> {
        let state = self.state.as_ref()?;
        let (from, to) = (&state.scheme, &state.change.as_ref()?.to);
        let goes = !from.provider.is_like(&to.provider);
        let missing = |these: &Scheme, those: &Scheme| {
            let missing = these.resources.difference(&those.resources);
            missing.flat_map(|name| directories(name)).collect()
        };
        Some(Leftover {
            gone: goes.then(|| from.provider.mark()),
            encrypted: missing(to, from),
            plain: missing(from, to),
        })
    }

    /// The resources that the change under way rewrites.
    #[must_use]
    pub fn rewritten(&self) -> Vec<String> {
        let Some((from, change)) = self
            .state
            .as_ref()
            .and_then(|state| Some((&state.scheme, state.change.as_ref()?)))
        else {
            return Vec::new();
        };
        let to = &change.to;
        if from.resources == to.resources {
            return to.resources.iter().cloned().collect();
        }
        let moved = from.resources.symmetric_difference(&to.resources);
        moved.cloned().collect()
    }
}

/// Where a resource may be stored: built-in ones by their name, custom ones under their group.
fn directories(resource: &str) -> Vec<String> {
    if let Some((_, directory)) = ELSEWHERE.iter().find(|(name, _)| *name == resource) {
        return vec![format!("{directory}/")];
    }
    match resource.split_once('.') {
        None => vec![format!("{resource}/")],
        Some((name, group)) => vec![format!("{name}/"), format!("{group}/{name}/")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_looked_for_where_an_api_server_puts_them() {
        assert_eq!(directories("secrets"), ["secrets/"]);
        assert_eq!(directories("services"), ["services/specs/"]);
        assert_eq!(
            directories("widgets.example.com"),
            ["widgets/", "example.com/widgets/"]
        );
    }
}
