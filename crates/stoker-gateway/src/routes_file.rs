//! Routes from a file, for whoever has no management cluster to watch: a file of YAML that is read again when it changes.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::metrics::Metrics;
use crate::routes::{Rest, Routes, Target};

/// How often it is looked whether the file is another one: one system call.
const LOOK: Duration = Duration::from_secs(1);

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// It is not what it should be.
    #[error("it is no list of routes: {0}")]
    Parse(String),
    /// A name is there twice.
    #[error("the name {0:?} is there twice")]
    Twice(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    routes: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    tenant: Option<String>,
    #[serde(default)]
    backends: Vec<SocketAddr>,
    #[serde(default)]
    tunnel: Vec<SocketAddr>,
    #[serde(default)]
    proxy_protocol: bool,
}

/// A file of routes.
#[derive(Debug)]
pub struct RoutesFile {
    path: PathBuf,
    /// Of what was read last.
    state: Option<State>,
}

/// Differs when the file is another one, also behind the links of a mounted `ConfigMap`.
type State = (u64, u64, i64, i64, u64);

impl RoutesFile {
    /// The file at `path`, not read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            state: None,
        }
    }

    /// Makes `routes` what the file says, if it has changed; true if it had.
    ///
    /// # Errors
    /// The file cannot be used: the routes stay as they are.
    pub fn load(&mut self, routes: &Routes) -> Result<bool, Unusable> {
        let state = std::fs::metadata(&self.path)
            .map(|found| state(&found))
            .map_err(Unusable::Read)?;
        if self.state == Some(state) {
            return Ok(false);
        }
        // A file that is wrong is said to be so once.
        self.state = Some(state);
        let text = std::fs::read_to_string(&self.path).map_err(Unusable::Read)?;
        let wanted = parse(&text)?;
        for (name, target) in &wanted {
            routes.set(name, target);
        }
        routes.keep_only(|name| wanted.contains_key(name));
        Ok(true)
    }

    /// Follows the file for ever.
    pub async fn follow(mut self, routes: &Routes, metrics: &Metrics) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            match self.load(routes) {
                Ok(false) => {}
                Ok(true) => tracing::info!(routes = routes.len(), "routes read again"),
                Err(error) => {
                    metrics.source_failures.inc();
                    tracing::error!(path = %self.path.display(), %error, "the routes stay as they are");
                }
            }
        }
    }
}

fn state(found: &Metadata) -> State {
    (
        found.dev(),
        found.ino(),
        found.mtime(),
        found.mtime_nsec(),
        found.size(),
    )
}

fn parse(text: &str) -> Result<BTreeMap<String, Target>, Unusable> {
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| Unusable::Parse(error.to_string()))?;
    let mut routes = BTreeMap::new();
    for entry in file.routes {
        let name = entry.name.to_ascii_lowercase();
        let target = Target {
            tenant: entry.tenant.unwrap_or_else(|| name.clone()).into(),
            backends: entry.backends,
            tunnel: entry.tunnel,
            proxy_protocol: entry.proxy_protocol,
            rest: Rest::None,
        };
        if routes.insert(name.clone(), target).is_some() {
            return Err(Unusable::Twice(name));
        }
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
routes:
  - name: One.example.com
    tenant: a/one
    backends: ["192.0.2.1:6443", "[2001:db8::1]:6443"]
    proxyProtocol: true
  - name: two.example.com
"#;

    #[test]
    fn a_file_is_routes() {
        let routes = parse(TWO).unwrap();
        let one = &routes["one.example.com"];
        assert_eq!(
            (&*one.tenant, one.backends.len(), one.proxy_protocol),
            ("a/one", 2, true)
        );
        assert_eq!(&*routes["two.example.com"].tenant, "two.example.com");
        for wrong in [
            "",
            "routes: 1",
            "routes:\n- nam: a",
            "routes:\n- name: a\n  backends: [a:1]",
        ] {
            assert!(matches!(parse(wrong), Err(Unusable::Parse(_))), "{wrong}");
        }
        let twice = "routes: [{name: a}, {name: A}]";
        assert!(matches!(parse(twice), Err(Unusable::Twice(_))));
    }

    #[test]
    fn it_is_read_again_when_it_changed_and_a_wrong_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.yaml");
        let routes = Routes::default();
        let mut file = RoutesFile::new(&path);
        assert!(matches!(file.load(&routes), Err(Unusable::Read(_))));
        std::fs::write(&path, TWO).unwrap();
        assert!(file.load(&routes).unwrap());
        assert!(!file.load(&routes).unwrap());
        assert_eq!(routes.len(), 2);
        std::fs::write(&path, "routes: [").unwrap();
        assert!(file.load(&routes).is_err());
        assert!(!file.load(&routes).unwrap());
        assert_eq!(routes.len(), 2);
        std::fs::write(&path, "routes: [{name: three}]").unwrap();
        assert!(file.load(&routes).unwrap());
        assert!(routes.find("three").is_some() && routes.len() == 1);
    }
}
