//! The kernel's NVIDIA driver.

use std::fs;
use std::path::Path;

/// Its version, such as `570.86.15`; `None` when it is not loaded.
pub(super) fn version(root: &Path) -> Option<String> {
    let module = fs::read_to_string(root.join("sys/module/nvidia/version"));
    if let Some(version) = module.ok().and_then(|text| first_version(&text)) {
        return Some(version);
    }
    let said = fs::read_to_string(root.join("proc/driver/nvidia/version")).ok()?;
    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu …"
    first_version(said.lines().next()?)
}

/// The first word that consists of numbers between dots, at least two.
fn first_version(text: &str) -> Option<String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_whitespace()
        .find(|word| word.contains('.') && word.split('.').all(is_number))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_both_files_say() {
        let proc = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)";
        assert_eq!(first_version(proc).as_deref(), Some("570.86.15"));
        assert_eq!(first_version("535.161\n").as_deref(), Some("535.161"));
        assert_eq!(first_version("no version here. None"), None);
    }
}
