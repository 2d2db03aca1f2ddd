//! What the cache holds, and removing what nobody uses any more.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use fs4::fs_std::FileExt as _;

use super::{Cache, remove_tree};
use crate::paths;
use crate::steps::Steps;

/// An entry that no run has asked for in this time belongs to a version or recipe that is no longer in use.
pub(crate) const UNUSED: Duration = Duration::from_hours(14 * 24);

/// A finished entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// `<name>-<version>-<recipe hash>`.
    pub name: String,
    /// Bytes of its files.
    pub size: u64,
    /// Time since a run last asked for it.
    pub unused: Duration,
}

impl Cache {
    /// All finished entries, largest first.
    pub(crate) fn entries(&self) -> Result<Vec<CacheEntry>> {
        let directory = self.root.join("entries");
        let mut entries = Vec::new();
        for found in std::fs::read_dir(&directory).context("reading the cache")? {
            let found = found.context("reading the cache")?;
            let (Ok(name), Some(unused)) = (found.file_name().into_string(), age(&found.path()))
            else {
                continue;
            };
            let size = size(&found.path());
            entries.push(CacheEntry { name, size, unused });
        }
        entries.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
        Ok(entries)
    }

    /// Removes the entries that no run has asked for in the time `unused` and no lab on this machine runs from,
    /// and what interrupted builds of such entries left. Safe beside other runs: an entry that one of them builds or
    /// has just asked for stays.
    pub(crate) fn prune(&self, steps: &Steps, unused: Duration) -> Result<Vec<CacheEntry>> {
        let in_use = in_use();
        let mut removed = Vec::new();
        for entry in self.entries()? {
            let place = self.root.join("entries").join(&entry.name);
            let name = place.display().to_string();
            if entry.unused >= unused
                && !in_use.iter().any(|setup| setup.contains(&name))
                && self.remove(&entry.name, &place, unused)?
            {
                steps.note(format_args!("cache: removed {}", entry.name));
                removed.push(entry);
            }
        }
        for half in directories(&self.root.join("building")) {
            if let Some(name) = half.file_name().and_then(|name| name.to_str()) {
                self.remove(name, &half, unused)?;
            }
        }
        Ok(removed)
    }

    /// Removes `place`, which the lock `key` guards, when it is old also under the lock.
    fn remove(&self, key: &str, place: &Path, unused: Duration) -> Result<bool> {
        let lock = self.lock_file(key)?;
        let free = lock.try_lock_exclusive().context("locking a cache entry")?;
        if !free || age(place).is_none_or(|age| age < unused) {
            return Ok(false);
        }
        // An entry is renamed first, so that an interruption leaves no half of one.
        let half = self.root.join("building").join(key);
        if place != half {
            remove_tree(&half)?;
            std::fs::rename(place, &half)
                .with_context(|| format!("removing {}", place.display()))?;
        }
        remove_tree(&half)?;
        Ok(true)
    }
}

/// Time since the last use; `None` when it is gone.
fn age(place: &Path) -> Option<Duration> {
    let used = place.metadata().ok()?.modified().ok()?;
    // A clock that went back makes it new.
    Some(SystemTime::now().duration_since(used).unwrap_or_default())
}

fn size(place: &Path) -> u64 {
    let Ok(meta) = place.symlink_metadata() else {
        return 0;
    };
    if !meta.is_dir() {
        return meta.len();
    }
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

fn directories(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What the hosts of all labs were made from: their search paths name entries.
fn in_use() -> Vec<String> {
    let labs = paths::labs().into_iter();
    let labs = labs.filter_map(|lab| paths::Paths::of(&lab).ok());
    labs.flat_map(|lab| directories(&lab.state().join("hosts")))
        .filter_map(|host| std::fs::read_to_string(host.join("host.json")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn cache(root: &Path, entries: &[(&str, u32)]) -> Cache {
        for part in ["entries", "locks", "building"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        for (name, days) in entries {
            make(&root.join("entries").join(name), *days);
        }
        Cache { root: root.into() }
    }

    fn make(place: &Path, days: u32) {
        std::fs::create_dir_all(place).unwrap();
        std::fs::write(place.join("file"), "twelve bytes").unwrap();
        let directory = std::fs::File::open(place).unwrap();
        directory
            .set_modified(SystemTime::now() - DAY * days)
            .unwrap();
    }

    fn names(entries: &[CacheEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn what_was_not_asked_for_in_time_goes_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), &[("old", 15), ("young", 13)]);
        make(&directory.path().join("building/half"), 15);
        make(&directory.path().join("building/fresh"), 0);
        let removed = cache.prune(&Steps::new(), 14 * DAY).unwrap();
        assert_eq!(names(&removed), ["old"]);
        assert_eq!(removed[0].size, 12);
        assert_eq!(names(&cache.entries().unwrap()), ["young"]);
        assert_eq!(
            directories(&directory.path().join("building")),
            [directory.path().join("building/fresh")]
        );
    }

    #[tokio::test]
    async fn an_entry_that_is_asked_for_stays_and_one_that_was_removed_is_built_again() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), &[("asked", 15), ("gone", 15)]);
        let never = async |_| anyhow::bail!("it is there");
        let steps = Steps::new();
        cache.entry(&steps, "asked", "asked", never).await.unwrap();
        assert_eq!(names(&cache.prune(&steps, 14 * DAY).unwrap()), ["gone"]);
        let built = async |out: PathBuf| Ok(std::fs::write(out.join("file"), "")?);
        let again = cache.entry(&steps, "gone", "gone", built).await.unwrap();
        assert!(again.join("file").exists());
    }

    #[test]
    fn an_entry_that_another_run_holds_stays() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path(), &[("held", 15)]);
        let lock = cache.lock_file("held").unwrap();
        lock.lock_exclusive().unwrap();
        assert!(cache.prune(&Steps::new(), 14 * DAY).unwrap().is_empty());
        drop(lock);
        assert_eq!(cache.prune(&Steps::new(), 14 * DAY).unwrap().len(), 1);
    }
}
