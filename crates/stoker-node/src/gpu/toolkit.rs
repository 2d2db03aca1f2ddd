//! What gives containers their devices: NVIDIA's container toolkit, and how containerd knows of it.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// What of the toolkit is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Toolkit {
    /// `nvidia-ctk` or `nvidia-container-runtime` is installed.
    pub installed: bool,
    /// containerd has a runtime `nvidia`.
    pub runtime: bool,
    /// There is a specification of the devices for the container device interface (CDI).
    pub cdi: bool,
}

const PROGRAMS: [&str; 5] = [
    "usr/bin/nvidia-ctk",
    "usr/bin/nvidia-container-runtime",
    "usr/local/bin/nvidia-ctk",
    // Where the GPU operator's container puts it.
    "usr/local/nvidia/toolkit/nvidia-ctk",
    "usr/local/nvidia/toolkit/nvidia-container-runtime",
];
/// containerd's configuration and the folder it usually imports.
const CONTAINERD: [&str; 2] = ["etc/containerd/config.toml", "etc/containerd/conf.d"];
/// The two folders in which runtimes look for CDI specifications.
const CDI: [&str; 2] = ["etc/cdi", "var/run/cdi"];

pub(super) fn look(root: &Path) -> Toolkit {
    Toolkit {
        installed: PROGRAMS.iter().any(|program| root.join(program).exists()),
        runtime: CONTAINERD.iter().any(|place| {
            let is_told = |text: String| text.contains("runtimes.nvidia");
            files(&root.join(place)).any(is_told)
        }),
        cdi: CDI
            .iter()
            .any(|place| files(&root.join(place)).any(|text| text.contains("nvidia.com/gpu"))),
    }
}

/// The text of a file, or of every file in a folder.
fn files(place: &Path) -> impl Iterator<Item = String> + use<> {
    let paths = match fs::read_dir(place) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![place.to_owned()],
    };
    paths
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
}
