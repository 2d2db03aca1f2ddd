//! Volumes of pods below the kubelet's directory: mounts are taken off, then files removed. Never through a mount: what is
//! behind one is somebody's data.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{dev_t, ino_t};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const LOOK: Duration = Duration::from_millis(500);
/// Names of a path that are told.
const TOLD: usize = 20;
/// For a process to end and its mounts to be free.
const SETTLE: Duration = Duration::from_secs(10);

/// Where a directory really is, whatever links lead to it: mounts are told by that. `None` where there is none.
pub(super) fn real(path: &Path) -> Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(Some(real)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("finding {}", path.display())),
    }
}

/// Takes off every mount below `root`, deepest first; fails when one stays.
pub(super) async fn free_mounts(root: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mounts = fs::read("/proc/self/mounts").context("reading mounts")?;
        let mut points = mount_points(&mounts, root);
        if points.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > SETTLE {
            let names: Vec<_> = points.iter().map(|point| point.to_string_lossy()).collect();
            bail!(
                "nothing in {} was removed, since what is mounted there would be removed with it: unmount {}, and run this again",
                root.display(),
                names.join(" ")
            );
        }
        points.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
        for point in points {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            if let Err(error) = umount2(&point, flags) {
                tracing::debug!(point = %point.display(), error = %error, "not unmounted yet");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Those below `root`, of the lines of `/proc/self/mounts`; not `root` itself, which may be a file system of the machine.
fn mount_points(mounts: &[u8], root: &Path) -> Vec<PathBuf> {
    let lines = mounts.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(1));
    let points = points.map(|point| PathBuf::from(OsString::from_vec(unescape(point))));
    points
        .filter(|point| point != root && point.starts_with(root))
        .collect()
}

/// The kernel writes spaces, tabs, line ends, backslashes and number signs as three octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        if let [
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            after @ ..,
        ] = rest
            && *first == b'\\'
        {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            text = after;
        } else {
            plain.push(*first);
            text = rest;
        }
    }
    plain
}

/// Removes everything in `root`, which is no link, however deep it goes: that is for pods to choose.
pub(super) fn empty(root: &Path) -> Result<()> {
    let open = Dir::open(root, directory(), Mode::empty());
    let open = open.with_context(|| format!("reading {}", root.display()))?;
    let device = fstat(&open).with_context(|| format!("reading {}", root.display()))?;
    empty_on(device.st_dev, open, root)
}

/// Relative to what is open, so that nobody puts a link in the way; stops before another file system.
fn empty_on(device: dev_t, open: Dir, path: &Path) -> Result<()> {
    let mut descent = Descent {
        device,
        root: path,
        here: open,
        levels: Vec::new(),
    };
    descent.enter()?;
    while let Some(level) = descent.levels.last() {
        match level.left.last().cloned() {
            Some(name) => descent.go_down(&name)?,
            None => descent.go_up()?,
        }
    }
    Ok(())
}

/// A walk in which one directory is open at a time.
struct Descent<'a> {
    device: dev_t,
    root: &'a Path,
    here: Dir,
    /// Of the root and all that lead here.
    levels: Vec<Level>,
}

struct Level {
    /// By which it is known again on the way up.
    inode: ino_t,
    /// Directories in it that are still there; the last is the way down.
    left: Vec<CString>,
}

impl Descent<'_> {
    /// Removes what is no directory from the one that was opened last.
    fn enter(&mut self) -> Result<()> {
        let found = fstat(&self.here).with_context(|| format!("reading {}", self.path()))?;
        ensure!(
            found.st_dev == self.device,
            "{} is another file system, and was left as it is: unmount it, and run this again",
            self.path()
        );
        let entries: Result<Vec<CString>, Errno> = self
            .here
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
            .collect();
        let entries = entries.with_context(|| format!("reading {}", self.path()))?;
        let mut left = Vec::new();
        for name in entries {
            if name.as_bytes() == b"." || name.as_bytes() == b".." {
                continue;
            }
            match unlinkat(&self.here, &*name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR) => left.push(name),
                removed => {
                    let name = name.to_string_lossy();
                    removed.with_context(|| format!("removing {}/{name}", self.path()))?;
                }
            }
        }
        self.levels.push(Level {
            inode: found.st_ino,
            left,
        });
        Ok(())
    }

    fn go_down(&mut self, name: &CStr) -> Result<()> {
        let child = Dir::openat(&self.here, name, directory(), Mode::empty());
        self.here = child.with_context(|| format!("reading {}", self.path()))?;
        self.enter()
    }

    /// Leaves the directory, which is empty, and removes it. Where it hangs is what is above, or somebody moved it meanwhile.
    fn go_up(&mut self) -> Result<()> {
        self.levels.pop();
        let Some(above) = self.levels.last() else {
            return Ok(());
        };
        let parent = Dir::openat(&self.here, c"..", directory(), Mode::empty());
        let parent = parent.with_context(|| format!("leaving {}", self.path()))?;
        let found = fstat(&parent).with_context(|| format!("leaving {}", self.path()))?;
        ensure!(
            (found.st_dev, found.st_ino) == (self.device, above.inode),
            "{} was moved while it was removed: run this again",
            self.path()
        );
        let name = above.left.last().cloned().unwrap_or_default();
        unlinkat(&parent, &*name, UnlinkatFlags::RemoveDir)
            .with_context(|| format!("removing {}", self.path()))?;
        self.here = parent;
        if let Some(above) = self.levels.last_mut() {
            above.left.pop();
        }
        Ok(())
    }

    /// Where it is, for people: its beginning where it goes deep.
    fn path(&self) -> String {
        let names = self.levels.iter().filter_map(|level| level.left.last());
        let names: Vec<_> = names
            .take(TOLD)
            .map(|name| name.to_string_lossy())
            .collect();
        let path = self.root.join(names.join("/"));
        path.display().to_string()
    }
}

fn directory() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_mounts_below_the_kubelets_directory_are_freed() {
        let mounts = b"tmpfs /data/kubelet/pods/a\\040b\\011c\\134d\\043 tmpfs rw 0 0\n\
            /dev/sda /data/kubelet ext4 rw 0 0\n/dev/sdb /data/kubelets/x ext4 rw 0 0\n";
        let points = mount_points(mounts, Path::new("/data/kubelet"));
        assert_eq!(points, [Path::new("/data/kubelet/pods/a b\tc\\d#")]);
    }

    #[test]
    fn a_directory_behind_a_link_is_looked_for_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("kubelet");
        assert_eq!(real(&link).unwrap(), None);
        fs::create_dir(folder.path().join("elsewhere")).unwrap();
        symlink("elsewhere", &link).unwrap();
        let expected = fs::canonicalize(folder.path()).unwrap().join("elsewhere");
        assert_eq!(real(&link).unwrap(), Some(expected));
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("kubelet/pods/a")).unwrap();
        fs::write(folder.path().join("kubelet/pods/a/data"), "").unwrap();
        fs::write(folder.path().join("beside"), "").unwrap();
        folder
    }

    #[test]
    fn a_directory_is_emptied_and_links_are_not_followed() {
        let folder = tree();
        let kubelet = folder.path().join("kubelet");
        symlink(folder.path(), kubelet.join("pods/link")).unwrap();
        symlink("nowhere", kubelet.join("dangling")).unwrap();
        empty(&kubelet).unwrap();
        assert_eq!(fs::read_dir(&kubelet).unwrap().count(), 0);
        assert!(folder.path().join("beside").exists());
    }

    #[test]
    fn what_goes_deep_is_removed_with_few_files_open_and_a_small_stack() {
        const CHILD: &str = "STOKER_DEEP";
        if std::env::var_os(CHILD).is_none() {
            // The limit is a process's.
            let name = std::thread::current().name().unwrap().to_owned();
            let child = std::process::Command::new("sh")
                .args(["-c", r#"ulimit -n 64 && exec "$0" --exact "$1""#])
                .arg(std::env::current_exe().unwrap())
                .arg(name)
                .env(CHILD, "1")
                .output()
                .unwrap();
            assert!(child.status.success(), "{child:?}");
            return;
        }
        let folder = tree();
        let kubelet = folder.path().join("kubelet");
        let mut open = Dir::open(&kubelet, directory(), Mode::empty()).unwrap();
        for level in 0..20_000 {
            let mode = Mode::from_bits_truncate(0o755);
            nix::sys::stat::mkdirat(&open, c"a", mode).unwrap();
            if level % 1000 == 0 {
                nix::sys::stat::mkdirat(&open, c"beside", mode).unwrap();
            }
            open = Dir::openat(&open, c"a", directory(), Mode::empty()).unwrap();
        }
        empty(&kubelet).unwrap();
        assert_eq!(fs::read_dir(&kubelet).unwrap().count(), 0);
        assert!(folder.path().join("beside").exists());
    }

    #[test]
    fn another_file_system_is_not_entered() {
        let folder = tree();
        let pods = folder.path().join("kubelet/pods");
        let open = Dir::open(&pods, directory(), Mode::empty()).unwrap();
        let other = fstat(&open).unwrap().st_dev + 1;
        let refused = empty_on(other, open, &pods).unwrap_err();
        assert!(refused.to_string().contains("another file system"));
        assert!(pods.join("a/data").exists());
    }
}
