//! What this machine is like, where it decides how the lab must be set up.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Bit of `CAP_SYS_RESOURCE` in the capability masks of `/proc/self/status` (`linux/capability.h`).
const CAP_SYS_RESOURCE: u32 = 24;

/// Facts about the kernel and about what this process may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Where the control groups of pods live.
    pub control_groups: ControlGroups,
    /// Whether a process may lower its `oom_score_adj`; without this runc cannot start sandboxes as asked.
    pub may_lower_oom_score: bool,
}

/// The control group file systems that are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlGroups {
    /// One tree per controller: their mount points. Beside them there may be a v2 tree without controllers,
    /// in which runc makes empty groups.
    V1 {
        /// Trees with controllers.
        trees: Vec<PathBuf>,
        /// The tree without.
        unified: Option<PathBuf>,
    },
    /// One tree for all: its mount point.
    V2(PathBuf),
}

impl Machine {
    /// Looks at `/proc`.
    ///
    /// # Errors
    /// When `/proc` cannot be read or no control groups are mounted.
    pub fn look() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let status = std::fs::read_to_string("/proc/self/status").context("reading our status")?;
        Ok(Self {
            control_groups: control_groups(&mounts).context(
                "no control groups are mounted under /sys/fs/cgroup; mount cgroup2 there",
            )?,
            may_lower_oom_score: has_capability(&status, CAP_SYS_RESOURCE),
        })
    }
}

impl ControlGroups {
    /// Makes the group `name` (such as `stoker-lab/demo/management`) in every tree.
    ///
    /// # Errors
    /// When a group cannot be made.
    pub fn make(&self, name: &str) -> Result<()> {
        for tree in self.trees() {
            let mut group = tree.to_path_buf();
            for part in name.split('/') {
                let parent = group.clone();
                group.push(part);
                if !group.is_dir() {
                    std::fs::create_dir(&group)
                        .with_context(|| format!("making the control group {}", group.display()))?;
                }
                prepare(&parent, &group)?;
            }
        }
        Ok(())
    }

    /// Makes the group `name` for a systemd, and returns it in each tree in which that keeps its units: of v1, the one named for
    /// it and the one without controllers.
    ///
    /// # Errors
    /// When there is no such tree, or a group cannot be made.
    pub fn make_for_systemd(&self, name: &str) -> Result<Vec<PathBuf>> {
        self.make(name)?;
        let mut trees = self.all_trees();
        if matches!(self, Self::V1 { .. }) {
            trees.retain(|tree| tree.ends_with("systemd") || tree.ends_with("unified"));
        }
        ensure!(
            !trees.is_empty(),
            "there is no control group tree for systemd: mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd"
        );
        let groups = trees.into_iter().map(|tree| tree.join(name));
        let groups: Vec<_> = groups.collect();
        for group in &groups {
            std::fs::create_dir_all(group)
                .with_context(|| format!("making the control group {}", group.display()))?;
        }
        Ok(groups)
    }

    /// Removes the group `name` and all below it; groups that are not there are passed over.
    ///
    /// # Errors
    /// When a group still has processes.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.all_trees()
            .into_iter()
            .try_for_each(|tree| remove_group(&tree.join(name)))
    }

    /// Removes the group `name` where no group is left below it and no process in it.
    pub fn remove_if_empty(&self, name: &str) {
        for tree in self.all_trees() {
            // The kernel refuses when another lab is there, which is right.
            let _ = std::fs::remove_dir(tree.join(name));
        }
    }

    /// What pods need and the v2 tree does not have, as when v1 trees hold it or a container was not given it.
    #[must_use]
    pub fn missing_controllers(&self) -> Vec<&'static str> {
        let Self::V2(tree) = self else {
            return Vec::new();
        };
        let present = std::fs::read_to_string(tree.join("cgroup.controllers")).unwrap_or_default();
        let present: Vec<_> = present.split_whitespace().collect();
        let mut missing = vec!["cpu", "cpuset", "io", "memory", "pids"];
        missing.retain(|name| !present.contains(name));
        missing
    }

    /// Whether the group is there in any tree.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.trees()
            .into_iter()
            .any(|tree| tree.join(name).is_dir())
    }

    /// Also the one without controllers.
    fn all_trees(&self) -> Vec<&Path> {
        let unified = match self {
            Self::V1 { unified, .. } => unified.as_deref(),
            Self::V2(_) => None,
        };
        self.trees().into_iter().chain(unified).collect()
    }

    fn trees(&self) -> Vec<&Path> {
        match self {
            Self::V1 { trees, .. } => trees.iter().map(PathBuf::as_path).collect(),
            Self::V2(tree) => vec![tree],
        }
    }
}

/// A cpuset without CPUs takes no process, and a v2 group without controllers limits nothing.
fn prepare(parent: &Path, group: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), group.join(file));
        if !from.is_file() || !to.is_file() || parent.join("cgroup.controllers").is_file() {
            continue;
        }
        let value = std::fs::read_to_string(&from).context("reading a cpuset")?;
        if std::fs::read_to_string(&to)
            .context("reading a cpuset")?
            .trim()
            .is_empty()
        {
            std::fs::write(&to, value.trim())
                .with_context(|| format!("setting {}", to.display()))?;
        }
    }
    if let Ok(controllers) = std::fs::read_to_string(parent.join("cgroup.controllers")) {
        let wanted: Vec<_> = controllers
            .split_whitespace()
            .map(|name| format!("+{name}"))
            .collect();
        std::fs::write(parent.join("cgroup.subtree_control"), wanted.join(" "))
            .with_context(|| format!("handing controllers down from {}", parent.display()))?;
    }
    Ok(())
}

fn remove_group(group: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(group) else {
        return Ok(());
    };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        remove_group(&entry.path())?;
    }
    // The kernel frees a dead process's group a moment after the process.
    for _ in 0..50 {
        match std::fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(40));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => {
                return other
                    .with_context(|| format!("removing the control group {}", group.display()));
            }
        }
    }
    anyhow::bail!("the control group {} still has processes", group.display())
}

/// v2 counts only when it has controllers: machines that use v1 also mount an empty v2 tree.
fn control_groups(mounts: &str) -> Option<ControlGroups> {
    let mounted = |kind: &'static str| {
        mounts.lines().filter_map(move |line| {
            let fields: Vec<_> = line.split(' ').collect();
            (fields.get(2) == Some(&kind)).then(|| PathBuf::from(fields[1]))
        })
    };
    let trees: Vec<_> = mounted("cgroup").collect();
    let unified = mounted("cgroup2").next();
    if trees.is_empty() {
        unified.map(ControlGroups::V2)
    } else {
        Some(ControlGroups::V1 { trees, unified })
    }
}

fn has_capability(status: &str, bit: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << bit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v1_machine_with_an_empty_v2_tree_is_v1() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            control_groups(mounts),
            Some(ControlGroups::V1 {
                trees: vec!["/sys/fs/cgroup/cpu".into()],
                unified: Some("/sys/fs/cgroup/unified".into()),
            })
        );
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(
            control_groups(mounts),
            Some(ControlGroups::V2("/sys/fs/cgroup".into()))
        );
    }

    #[test]
    fn only_an_empty_group_is_removed() {
        let tree = tempfile::tempdir().unwrap();
        let groups = ControlGroups::V2(tree.path().into());
        std::fs::create_dir_all(tree.path().join("labs/other")).unwrap();
        groups.remove_if_empty("labs");
        assert!(tree.path().join("labs/other").is_dir());
        std::fs::remove_dir(tree.path().join("labs/other")).unwrap();
        groups.remove_if_empty("labs");
        assert!(!tree.path().join("labs").exists());
    }

    #[test]
    fn controllers_that_pods_need_are_missed() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("cgroup.controllers");
        let groups = ControlGroups::V2(tree.path().into());
        std::fs::write(&file, "hugetlb cpu io\n").unwrap();
        assert_eq!(groups.missing_controllers(), ["cpuset", "memory", "pids"]);
        std::fs::write(&file, "cpuset cpu io memory hugetlb pids rdma\n").unwrap();
        assert!(groups.missing_controllers().is_empty());
    }

    #[test]
    fn a_missing_capability_is_seen() {
        assert!(!has_capability(
            "CapEff:\t000001fffeffffff\n",
            CAP_SYS_RESOURCE
        ));
        assert!(has_capability(
            "CapEff:\t000001ffffffffff\n",
            CAP_SYS_RESOURCE
        ));
    }
}
