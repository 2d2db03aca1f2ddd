//! Devices on the PCI bus, of which sysfs tells without any driver.

use std::fs;
use std::path::Path;

/// NVIDIA's vendor id.
const NVIDIA: &str = "0x10de";

/// VGA controllers and 3D controllers, base class 03 of the PCI code and ID assignment specification. Switches between them
/// (bridges, 06) and the audio functions of graphics cards (04) are not among them.
const DISPLAY: &str = "0x03";

/// The addresses of all NVIDIA GPUs, such as `0000:18:00.0`, in order. Virtual functions count: on a machine that has
/// them they are what is used.
pub(super) fn devices(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("sys/bus/pci/devices")) else {
        return Vec::new();
    };
    let mut found: Vec<String> = entries
        .flatten()
        .filter(|entry| is(&entry.path(), "vendor", NVIDIA) && is(&entry.path(), "class", DISPLAY))
        .map(|entry| entry.file_name().to_string_lossy().to_lowercase())
        .collect();
    found.sort();
    found
}

fn is(device: &Path, attribute: &str, begins: &str) -> bool {
    fs::read_to_string(device.join(attribute)).is_ok_and(|value| value.starts_with(begins))
}
