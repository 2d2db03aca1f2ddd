//! The NVIDIA devices of this machine: what its bus, its driver and the driver's tools say of them.
//!
//! ```text
//!  sysfs ─────────► pci ─────┐
//!  /proc, /sys ───► driver ──┼─► Machine::of (pure) ─► labels, findings
//!  nvidia-smi ────► smi ─────┤
//!  /etc, /usr ────► toolkit ─┘
//! ```

mod driver;
mod labels;
mod machine;
mod pci;
mod smi;
mod toolkit;

use std::path::Path;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

pub use labels::{ALL as LABELS, labels};
pub use machine::{Device, Health, Machine};
pub use toolkit::Toolkit;

/// Files of a driver that works are read at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at a machine, again and again.
#[derive(Debug, Default)]
pub struct Observer {
    tool: smi::Tool,
    /// Reading files of a driver that hangs takes for ever.
    reading: Option<JoinHandle<Option<Files>>>,
}

/// What is on the bus, the driver's version, and the toolkit.
type Files = (Vec<String>, Option<String>, Toolkit);

impl Observer {
    /// Looks at the machine whose files are under `root` (`/`, or where a container has them mounted). Without an NVIDIA
    /// device on the bus nothing else is asked.
    ///
    /// Never fails: what cannot be found out stands in [`Machine::findings`].
    pub async fn look(&mut self, root: &Path) -> Machine {
        let files = root.to_owned();
        let read = move || {
            let on_bus = pci::devices(&files);
            let has_any = !on_bus.is_empty();
            has_any.then(|| (on_bus, driver::version(&files), toolkit::look(&files)))
        };
        let reading = self.reading.get_or_insert_with(|| spawn_blocking(read));
        let Ok(read) = timeout(PATIENCE, reading).await else {
            return Machine {
                findings: vec!["files of the NVIDIA driver cannot be read: it hangs".to_owned()],
                silent: true,
                ..Machine::default()
            };
        };
        self.reading = None;
        let Ok(Some((on_bus, driver, toolkit))) = read else {
            return Machine::default();
        };
        let seen = match &driver {
            Some(_) => self.tool.ask(root).await,
            None => Err(smi::Silent::NoDriver),
        };
        Machine::of(on_bus, driver, seen, toolkit)
    }
}
