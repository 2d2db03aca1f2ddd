//! Volumes of pods below the kubelet's directory: mounts are taken off, then files removed. Never through a mount: what is
//! behind one is somebody's data.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::dev_t;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const LOOK: Duration = Duration::from_millis(500);
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

/// Removes everything in `root`, which is no link.
pub(super) fn empty(root: &Path) -> Result<()> {
    let open = Dir::open(root, directory(), Mode::empty());
    let open = open.with_context(|| format!("reading {}", root.display()))?;
    let device = fstat(&open).with_context(|| format!("reading {}", root.display()))?;
    empty_on(device.st_dev, open, root)
}

/// Relative to what is open, so that nobody puts a link in the way; stops before another file system.
fn empty_on(device: dev_t, mut open: Dir, path: &Path) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let own = fstat(&open).with_context(reading)?.st_dev;
    ensure!(
        own == device,
        "{} is another file system, and was left as it is: unmount it, and run this again",
        path.display()
    );
    let entries: Result<Vec<CString>, Errno> = open
        .iter()
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect();
    for name in entries.with_context(reading)? {
        if name.as_bytes() == b"." || name.as_bytes() == b".." {
            continue;
        }
        let below = path.join(OsString::from_vec(name.as_bytes().to_vec()));
        let removed = match unlinkat(&open, &*name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {
                let child = Dir::openat(&open, &*name, directory(), Mode::empty());
                let child = child.with_context(|| format!("reading {}", below.display()))?;
                empty_on(device, child, &below)?;
                unlinkat(&open, &*name, UnlinkatFlags::RemoveDir)
            }
            removed => removed,
        };
        removed.with_context(|| format!("removing {}", below.display()))?;
    }
    Ok(())
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
