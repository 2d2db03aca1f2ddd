//! What `nvidia-smi` says of each device.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Fields of `nvidia-smi --query-gpu`, in the order of [`row`]. The state of performance is not of interest, but asked of the
/// device itself: the driver knows the others even of one that no longer answers.
const FIELDS: &str = "pci.bus_id,uuid,name,memory.total,mig.mode.current,pstate";
/// Known since driver 510; before, the whole question is refused.
const CAPABILITY: &str = ",compute_cap";
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

/// Where it is, and the folder that is to be its root: the GPU operator's driver brings it in a file system of its own.
const PLACES: [(&str, Option<&str>); 3] = [
    ("usr/bin/nvidia-smi", None),
    ("usr/local/nvidia/bin/nvidia-smi", None),
    ("usr/bin/nvidia-smi", Some("run/nvidia/driver")),
];

/// `nvidia-smi`, run once at a time.
#[derive(Debug)]
pub(super) struct Tool {
    patience: Duration,
    /// One that did not end in time, and cannot be ended while it waits in the driver. Others would only wait beside it.
    hanging: Option<JoinHandle<()>>,
}

impl Default for Tool {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            hanging: None,
        }
    }
}

impl Tool {
    /// Asks for all devices.
    pub(super) async fn ask(&mut self, root: &Path) -> Result<Vec<Row>, Silent> {
        let program = program(root).ok_or(Silent::NotInstalled)?;
        let query = |more| format!("--query-gpu={FIELDS}{more}");
        let mut asked = self.devices(&program, &query(CAPABILITY)).await;
        if let Err(Silent::Failed(_)) = asked {
            asked = self.devices(&program, &query("")).await;
        }
        let mut rows = asked?;
        // Consumer cards and old drivers know nothing of remapping.
        let query = format!("--query-remapped-rows={REMAPPED}");
        if let Ok(output) = self.run(&program, &query).await {
            add_remapping(&mut rows, &String::from_utf8_lossy(&output.stdout));
        }
        Ok(rows)
    }

    /// It fails as well when it has told of all devices but one that is lost.
    async fn devices(&mut self, program: &[OsString], query: &str) -> Result<Vec<Row>, Silent> {
        let output = self.run(program, query).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rows = parse(&said);
        if output.status.success() || !rows.is_empty() {
            return Ok(rows);
        }
        let complaint = [said, String::from_utf8_lossy(&output.stderr)].concat();
        Err(Silent::Failed(complaint.trim().replace('\n', "; ")))
    }

    async fn run(&mut self, program: &[OsString], query: &str) -> Result<Output, Silent> {
        if self.hanging.as_ref().is_some_and(|one| !one.is_finished()) {
            return Err(Silent::Hangs);
        }
        self.hanging = None;
        let failed = |error: io::Error| Silent::Failed(error.to_string());
        let mut child = Command::new(&program[0])
            .args(&program[1..])
            .args([query, "--format=csv,noheader,nounits"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Ok(output) = timeout(self.patience, output(&mut child)).await {
            return output.map_err(failed);
        }
        let ending = async move { child.kill().await.unwrap_or_default() };
        self.hanging = Some(tokio::spawn(ending));
        Err(Silent::Hangs)
    }
}

async fn output(child: &mut Child) -> io::Result<Output> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (status, stdout, stderr) = tokio::try_join!(child.wait(), all_of(out), all_of(err))?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

async fn all_of(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut read).await?;
    }
    Ok(read)
}

/// What is to be run, with its first arguments.
fn program(root: &Path) -> Option<Vec<OsString>> {
    PLACES.into_iter().find_map(|(path, own_root)| {
        let Some(own_root) = own_root else {
            let program = root.join(path);
            return program.exists().then(|| vec![program.into()]);
        };
        let own_root = root.join(own_root);
        let chroot = || {
            vec![
                "chroot".into(),
                own_root.clone().into(),
                "nvidia-smi".into(),
            ]
        };
        own_root.join(path).exists().then(chroot)
    })
}

/// One row for each line that begins with an address; others are remarks, such as of a device that is lost.
pub(super) fn parse(said: &str) -> Vec<Row> {
    said.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split(',').map(str::trim);
    let bus_id = address(fields.next()?)?;
    let values: Vec<&str> = fields.collect();
    let trouble = values.iter().find_map(|value| trouble(value));
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
        compute_capability: text(5),
        trouble,
        ..Row::default()
    })
}

/// What a value that is none says of its device, if that is more than that there is none.
fn trouble(value: &str) -> Option<String> {
    const NONE: [&str; 4] = [
        "N/A",
        "Not Supported",
        "Not Found",
        "Requested functionality has been deprecated",
    ];
    let said = value
        .strip_prefix('[')
        .and_then(|said| said.strip_suffix(']'));
    let told = said.filter(|said| !NONE.contains(said));
    let lost = || value.contains("Unknown Error") || value.contains("GPU is lost");
    told.or_else(|| lost().then_some(value)).map(str::to_owned)
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
