//! What `nvidia-smi` says of each device.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

/// Fields of `nvidia-smi --query-gpu`, in the order of [`Row`]. `compute_cap` is known since driver 510.
const FIELDS: &str = "pci.bus_id,uuid,name,memory.total,mig.mode.current,compute_cap";
/// Fields of `nvidia-smi --query-remapped-rows`.
const REMAPPED: &str = "gpu_bus_id,remapped_rows.pending,remapped_rows.failure";
/// With a broken device it may wait in the driver for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// One device as `nvidia-smi` tells of it; `None` where it has no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// As sysfs writes it: `0000:18:00.0`.
    pub(super) bus_id: String,
    pub(super) uuid: Option<String>,
    pub(super) name: Option<String>,
    pub(super) memory_mib: Option<u64>,
    pub(super) mig: bool,
    pub(super) compute_capability: Option<String>,
    /// Memory rows are to be remapped at the next reset.
    pub(super) reset_pending: bool,
    /// Remapping failed: the device is to be replaced.
    pub(super) remapping_failed: bool,
    /// A field that should have a value says that the driver cannot talk to the device.
    pub(super) trouble: Option<String>,
}

/// Why nothing is known of the devices.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Silent {
    #[error(
        "the NVIDIA driver is not loaded: install it, or run the GPU operator, which brings it"
    )]
    NoDriver,
    #[error("nvidia-smi is not installed: install the driver's utilities")]
    NotInstalled,
    #[error("nvidia-smi did not answer within {} s: a device hangs in the driver; see Xid lines in the kernel's log", PATIENCE.as_secs())]
    Hangs,
    #[error("nvidia-smi failed: {0}")]
    Failed(String),
}

/// Asks for all devices.
pub(super) async fn ask(root: &Path) -> Result<Vec<Row>, Silent> {
    let program = ["usr/bin/nvidia-smi", "usr/local/nvidia/bin/nvidia-smi"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.exists())
        .ok_or(Silent::NotInstalled)?;
    let said = run(&program, &format!("--query-gpu={FIELDS}")).await?;
    let mut rows = parse(&said);
    // Consumer cards and old drivers know nothing of remapping.
    if let Ok(said) = run(&program, &format!("--query-remapped-rows={REMAPPED}")).await {
        add_remapping(&mut rows, &said);
    }
    Ok(rows)
}

async fn run(program: &Path, query: &str) -> Result<String, Silent> {
    let mut command = Command::new(program);
    command
        .args([query, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output())
        .await
        .map_err(|_| Silent::Hangs)?
        .map_err(|error| Silent::Failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = [said, String::from_utf8_lossy(&output.stderr).into_owned()].concat();
    Err(Silent::Failed(complaint.trim().replace('\n', "; ")))
}

/// One row for each line that begins with an address; others are remarks, such as of a device that is lost.
pub(super) fn parse(said: &str) -> Vec<Row> {
    said.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split(',').map(str::trim);
    let bus_id = address(fields.next()?)?;
    let values: Vec<&str> = fields.collect();
    let trouble = values
        .iter()
        .find(|value| value.contains("Unknown Error") || value.contains("GPU is lost"))
        .map(|value| value.trim_matches(['[', ']']).to_owned());
    let text = |index: usize| {
        let value = values.get(index)?;
        // "[N/A]", "[Not Supported]", "[Unknown Error]"
        (!value.is_empty() && !value.starts_with('[') && *value != "N/A")
            .then(|| (*value).to_owned())
    };
    Some(Row {
        bus_id,
        uuid: text(0),
        name: text(1),
        memory_mib: text(2).and_then(|value| value.parse().ok()),
        mig: values.get(3) == Some(&"Enabled"),
        compute_capability: text(4),
        trouble,
        ..Row::default()
    })
}

/// `00000000:18:00.0` as sysfs writes it, whose domain has four digits as long as they are enough.
fn address(text: &str) -> Option<String> {
    let (domain, rest) = text.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    (rest.len() == "18:00.0".len()).then(|| format!("{domain:04x}:{}", rest.to_lowercase()))
}

fn add_remapping(rows: &mut [Row], said: &str) {
    let is_so = |value: Option<&str>| matches!(value, Some("Yes" | "1"));
    for line in said.lines() {
        let mut fields = line.split(',').map(str::trim);
        let Some(bus_id) = fields.next().and_then(address) else {
            continue;
        };
        if let Some(row) = rows.iter_mut().find(|row| row.bus_id == bus_id) {
            row.reset_pending = is_so(fields.next());
            row.remapping_failed = is_so(fields.next());
        }
    }
}

#[cfg(test)]
mod tests;
