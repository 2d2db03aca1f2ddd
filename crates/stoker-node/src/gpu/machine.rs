//! What is known of all devices together.

use serde::Serialize;

use super::smi::{Row, Silent};
use super::toolkit::Toolkit;

/// What was found on a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// In the order of their addresses.
    pub devices: Vec<Device>,
    /// Version of the loaded driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// What gives containers their devices.
    pub toolkit: Toolkit,
    /// What keeps devices from being used, each with what to do; empty when all is well.
    pub findings: Vec<String>,
    /// Whether the driver's tools, which are there, say nothing: what they said before is as good as it was.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// PCI address, such as `0000:18:00.0`.
    pub address: String,
    /// NVIDIA's name for this very device: `GPU-…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Model, such as `NVIDIA H200`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Memory, MiB.
    #[serde(rename = "memoryMiB", skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// CUDA compute capability, such as `9.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// It is divided into instances (MIG).
    pub mig: bool,
    /// Whether it can be used.
    pub health: Health,
}

/// Whether a device can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Health {
    /// The driver answers for it.
    Healthy,
    /// It cannot be used; [`Machine::findings`] says why.
    Unhealthy,
    /// Nobody can be asked.
    Unknown,
}

impl Machine {
    /// Puts together what bus, driver and tools say.
    pub(super) fn of(
        on_bus: Vec<String>,
        driver: Option<String>,
        seen: Result<Vec<Row>, Silent>,
        toolkit: Toolkit,
    ) -> Self {
        let mut findings = Vec::new();
        let silent = matches!(seen, Err(Silent::Hangs | Silent::Failed(_)));
        let devices = match seen {
            Ok(rows) => on_bus
                .into_iter()
                .map(|address| {
                    let row = rows.iter().find(|row| row.bus_id == address);
                    device(address, row, &mut findings)
                })
                .collect(),
            Err(why) => {
                let health = match why {
                    Silent::NotInstalled => Health::Unknown,
                    _ => Health::Unhealthy,
                };
                findings.push(why.to_string());
                let unseen = |address| Device::unseen(address, health);
                on_bus.into_iter().map(unseen).collect()
            }
        };
        if !toolkit.installed {
            findings.push(
                "NVIDIA's container toolkit is not installed: containers get no device".to_owned(),
            );
        } else if !toolkit.runtime && !toolkit.cdi {
            findings.push(
                "containerd does not know the devices: run `nvidia-ctk runtime configure --runtime=containerd` and restart \
                 containerd, or `nvidia-ctk cdi generate`"
                    .to_owned(),
            );
        }
        Self {
            devices,
            driver,
            toolkit,
            findings,
            silent,
        }
    }

    /// How many devices can be used.
    #[must_use]
    pub fn healthy(&self) -> usize {
        let is_healthy = |device: &&Device| device.health == Health::Healthy;
        self.devices.iter().filter(is_healthy).count()
    }
}

impl Device {
    fn unseen(address: String, health: Health) -> Self {
        Self {
            address,
            uuid: None,
            product: None,
            memory_mib: None,
            compute_capability: None,
            mig: false,
            health,
        }
    }
}

fn device(address: String, row: Option<&Row>, findings: &mut Vec<String>) -> Device {
    let Some(row) = row else {
        findings.push(format!(
            "{address} is on the bus and unknown to the driver: it may have fallen off the bus (Xid 79 in the kernel's log); \
             reset it or restart the machine"
        ));
        return Device::unseen(address, Health::Unhealthy);
    };
    let trouble = row
        .trouble
        .clone()
        .map(|said| format!("the driver says {said:?}: reset it, or restart the machine"));
    let failed = row
        .remapping_failed
        .then(|| "rows of its memory could not be remapped: replace it".to_owned());
    let trouble = trouble.or(failed);
    if let Some(trouble) = &trouble {
        findings.push(format!("{address}: {trouble}"));
    } else if row.reset_pending {
        findings.push(format!(
            "{address}: rows of its memory are remapped at its next reset: reset it when it is idle"
        ));
    }
    Device {
        address,
        uuid: row.uuid.clone(),
        product: row.name.clone(),
        memory_mib: row.memory_mib,
        compute_capability: row.compute_capability.clone(),
        mig: row.mig,
        health: match trouble {
            Some(_) => Health::Unhealthy,
            None => Health::Healthy,
        },
    }
}
