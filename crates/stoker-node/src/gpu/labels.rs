//! Labels of the node, in the names of NVIDIA's GPU feature discovery.

use std::collections::BTreeMap;

use stoker_api::labels::{GPU_COUNT, GPU_HEALTHY, GPU_MEMORY, GPU_PRODUCT};

use super::machine::{Health, Machine};

const PRESENT: &str = "nvidia.com/gpu.present";
const FAMILY: &str = "nvidia.com/gpu.family";
const COMPUTE_MAJOR: &str = "nvidia.com/gpu.compute.major";
const COMPUTE_MINOR: &str = "nvidia.com/gpu.compute.minor";
const DRIVER_MAJOR: &str = "nvidia.com/cuda.driver.major";
const DRIVER_MINOR: &str = "nvidia.com/cuda.driver.minor";
const DRIVER_REVISION: &str = "nvidia.com/cuda.driver.rev";
const DRIVER_VERSION: &str = "nvidia.com/cuda.driver-version.full";

/// Labels that this agent writes. NVIDIA's GPU feature discovery has names of its own among them: where it runs, these are left to it.
pub const ALL: [&str; 12] = [
    PRESENT,
    GPU_COUNT,
    GPU_HEALTHY,
    GPU_PRODUCT,
    GPU_MEMORY,
    FAMILY,
    COMPUTE_MAJOR,
    COMPUTE_MINOR,
    DRIVER_MAJOR,
    DRIVER_MINOR,
    DRIVER_REVISION,
    DRIVER_VERSION,
];

/// What selectors can use. What differs between the devices of one machine has no label; memory and model have none while a
/// device is divided (MIG), since they would be those of its instances.
#[must_use]
pub fn labels(machine: &Machine) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::new();
    let devices = &machine.devices;
    if devices.is_empty() {
        return labels;
    }
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            labels.insert(name, value);
        }
    };
    add(PRESENT, Some("true".to_owned()));
    add(GPU_COUNT, Some(devices.len().to_string()));
    // Where nobody can be asked, none would be said to be healthy.
    let is_known = devices
        .iter()
        .all(|device| device.health != Health::Unknown);
    add(GPU_HEALTHY, is_known.then(|| machine.healthy().to_string()));
    if !devices.iter().any(|device| device.mig) {
        let product = same(devices.iter().map(|device| device.product.clone()));
        add(GPU_PRODUCT, product.as_deref().and_then(label_value));
        let memory = same(devices.iter().map(|device| device.memory_mib));
        add(GPU_MEMORY, memory.map(|mib| mib.to_string()));
    }
    let capability = same(
        devices
            .iter()
            .map(|device| device.compute_capability.clone()),
    );
    if let Some((major, minor)) = capability.as_deref().and_then(|text| text.split_once('.')) {
        add(FAMILY, family(major, minor).map(str::to_owned));
        add(COMPUTE_MAJOR, Some(major.to_owned()));
        add(COMPUTE_MINOR, Some(minor.to_owned()));
    }
    if let Some(driver) = &machine.driver {
        let mut parts = driver.splitn(3, '.').map(str::to_owned);
        for name in [DRIVER_MAJOR, DRIVER_MINOR, DRIVER_REVISION] {
            // `rev` is there and empty for versions of two numbers.
            add(name, Some(parts.next().unwrap_or_default()));
        }
        add(DRIVER_VERSION, Some(driver.clone()));
    }
    labels
}

/// The value that all devices have of which it is known: one that is lost takes no label from the others.
fn same<T: PartialEq>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut known = values.flatten();
    let first = known.next()?;
    known.all(|value| value == first).then_some(first)
}

/// As feature discovery does it: spaces become dashes, and what no label may have is left out.
fn label_value(text: &str) -> Option<String> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let value: String = text
        .replace(' ', "-")
        .chars()
        .filter(allowed)
        .take(63)
        .collect();
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!value.is_empty()).then(|| value.to_owned())
}

/// NVIDIA's architectures by compute capability.
fn family(major: &str, minor: &str) -> Option<&'static str> {
    match (major, minor) {
        ("6", _) => Some("pascal"),
        ("7", "5") => Some("turing"),
        ("7", _) => Some("volta"),
        ("8", "9") => Some("ada-lovelace"),
        ("8", _) => Some("ampere"),
        ("9", _) => Some("hopper"),
        ("10" | "12", _) => Some("blackwell"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
