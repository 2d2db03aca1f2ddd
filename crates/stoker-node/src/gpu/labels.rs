//! Labels of the node, in the names of NVIDIA's GPU feature discovery.

use std::collections::BTreeMap;

use super::machine::{Health, Machine};

/// Labels that this agent writes. NVIDIA's GPU feature discovery has names of its own among them: where it runs, these are left to it.
pub const ALL: [&str; 12] = [
    "nvidia.com/gpu.present",
    "nvidia.com/gpu.count",
    HEALTHY,
    "nvidia.com/gpu.product",
    "nvidia.com/gpu.memory",
    "nvidia.com/gpu.family",
    "nvidia.com/gpu.compute.major",
    "nvidia.com/gpu.compute.minor",
    "nvidia.com/cuda.driver.major",
    "nvidia.com/cuda.driver.minor",
    "nvidia.com/cuda.driver.rev",
    "nvidia.com/cuda.driver-version.full",
];

/// How many devices can be used. Nobody else has a name for that.
const HEALTHY: &str = "stoker.dev/gpu.healthy";

/// What selectors can use. What differs between the devices of one machine has no label; memory and model have none while a device is divided (MIG), since they would be those of its instances.
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
    add(ALL[0], Some("true".to_owned()));
    add(ALL[1], Some(devices.len().to_string()));
    // Where nobody can be asked, none would be said to be healthy.
    let is_known = devices
        .iter()
        .all(|device| device.health != Health::Unknown);
    add(HEALTHY, is_known.then(|| machine.healthy().to_string()));
    if !devices.iter().any(|device| device.mig) {
        let product = same(devices.iter().map(|device| device.product.clone()));
        add(ALL[3], product.and_then(|product| label_value(&product)));
        let memory = same(devices.iter().map(|device| device.memory_mib));
        add(ALL[4], memory.map(|mib| mib.to_string()));
    }
    let capability = same(
        devices
            .iter()
            .map(|device| device.compute_capability.clone()),
    );
    if let Some((major, minor)) = capability.as_deref().and_then(|text| text.split_once('.')) {
        add(ALL[5], family(major, minor).map(str::to_owned));
        add(ALL[6], Some(major.to_owned()));
        add(ALL[7], Some(minor.to_owned()));
    }
    if let Some(driver) = &machine.driver {
        let mut parts = driver.splitn(3, '.').map(str::to_owned);
        for name in &ALL[8..11] {
            // `rev` is there and empty for versions of two numbers.
            add(name, Some(parts.next().unwrap_or_default()));
        }
        add(ALL[11], Some(driver.clone()));
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
