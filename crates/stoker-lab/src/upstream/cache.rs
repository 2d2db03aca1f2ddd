//! The cache directory: entries that appear whole or not at all, and go when nobody has used them for a while.

mod prune;

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use fs4::fs_std::FileExt as _;

use crate::steps::Steps;
pub use prune::CacheEntry;
pub(crate) use prune::UNUSED;

/// A directory of finished entries, of locks and of builds in progress.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// Name of an entry: what it is, its version, and a hash of how it is made.
///
/// The hash only has to change with the recipe; [`DefaultHasher::new`] has fixed keys, and if a later Rust
/// changed it, entries would only be built again.
pub(crate) fn key(name: &str, version: &str, recipe: &str) -> String {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    format!("{name}-{version}-{:08x}", hasher.finish() & 0xffff_ffff)
}

impl Cache {
    pub(crate) fn open() -> Result<Self> {
        let root = if let Some(path) = variable("STOKER_CACHE") {
            path
        } else if let Some(path) = variable("XDG_CACHE_HOME") {
            path.join("stoker")
        } else if let Some(path) = variable("HOME") {
            path.join(".cache/stoker")
        } else {
            bail!("no place for the cache: set STOKER_CACHE to a directory with 10 GB free");
        };
        for part in ["entries", "locks", "building"] {
            let path = root.join(part);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("making the cache directory {}", path.display()))?;
        }
        Ok(Self { root })
    }

    /// Where the cache is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The finished entry, built by `build` (which fills the directory it is given) when it is missing.
    pub(crate) async fn entry(
        &self,
        steps: &Steps,
        key: &str,
        title: &str,
        build: impl AsyncFnOnce(PathBuf) -> Result<()>,
    ) -> Result<PathBuf> {
        let done = self.root.join("entries").join(key);
        if self.is_kept(key, &done)? {
            return Ok(done);
        }
        let lock = self.lock(steps, key).await?;
        if mark_used(&done) {
            return Ok(done);
        }
        let building = self.root.join("building").join(key);
        remove_tree(&building)?;
        let out = building.join("out");
        std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        steps.step(title, build(out.clone())).await?;
        std::fs::rename(&out, &done).with_context(|| format!("finishing {}", done.display()))?;
        remove_tree(&building)?;
        drop(lock);
        self.prune(steps, UNUSED)?;
        Ok(done)
    }

    /// Whether the finished entry is there. Then it was just used, and no prune that is running removes it.
    fn is_kept(&self, key: &str, done: &Path) -> Result<bool> {
        let lock = self.lock_file(key)?;
        // Held by a run that builds it or removes it: wait for that one.
        let free = fs4::fs_std::FileExt::try_lock_shared(&lock).context("locking a cache entry")?;
        Ok(free && mark_used(done))
    }

    fn lock_file(&self, key: &str) -> Result<File> {
        let path = self.root.join("locks").join(key);
        File::create(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Waits for the lock `key`, of an entry or of something else that one run at a time may work on; held until the file
    /// is dropped, also when the process is killed.
    pub(crate) async fn lock(&self, steps: &Steps, key: &str) -> Result<File> {
        let file = self.lock_file(key)?;
        if !file.try_lock_exclusive().context("locking a cache entry")? {
            let wait = async {
                while !file.try_lock_exclusive().context("locking a cache entry")? {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                }
                Ok(())
            };
            steps
                .step(format!("waiting for another run that works on {key}"), wait)
                .await?;
        }
        Ok(file)
    }
}

/// Notes the time on the entry's directory; `false` when there is no entry.
fn mark_used(entry: &Path) -> bool {
    let Ok(directory) = File::open(entry) else {
        return false;
    };
    // Where this is not allowed nothing can be removed either.
    let _ = directory.set_modified(SystemTime::now());
    true
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(root: &Path) -> Cache {
        for part in ["entries", "locks", "building"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        Cache { root: root.into() }
    }

    #[tokio::test]
    async fn a_failed_build_leaves_no_entry_and_the_next_one_starts_clean() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let steps = Steps::new();
        let failing = async |out: PathBuf| {
            std::fs::write(out.join("half"), "x").unwrap();
            bail!("interrupted")
        };
        assert!(cache.entry(&steps, "a", "a", failing).await.is_err());
        let whole = async |out: PathBuf| Ok(std::fs::write(out.join("whole"), "x")?);
        let entry = cache.entry(&steps, "a", "a", whole).await.unwrap();
        assert!(entry.join("whole").exists() && !entry.join("half").exists());
    }

    #[tokio::test]
    async fn two_runs_at_once_build_once() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let steps = Steps::new();
        let count = std::sync::atomic::AtomicUsize::new(0);
        let build = async |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Ok(())
        };
        let (first, second) = tokio::join!(
            cache.entry(&steps, "b", "b", build),
            cache.entry(&steps, "b", "b", build)
        );
        assert_eq!(first.unwrap(), second.unwrap());
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
    }

    #[test]
    fn a_changed_recipe_is_another_entry() {
        assert_ne!(key("a", "1", "x"), key("a", "1", "y"));
    }
}
