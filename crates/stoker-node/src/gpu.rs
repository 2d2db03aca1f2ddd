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

use tokio::task::spawn_blocking;

pub use labels::{ALL as LABELS, labels};
pub use machine::{Device, Health, Machine};
pub use toolkit::Toolkit;

/// Looks at a machine, again and again.
#[derive(Debug, Default)]
pub struct Observer {
    tool: smi::Tool,
}

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
        // A driver that hangs holds up who reads its files.
        let Ok(Some((on_bus, driver, toolkit))) = spawn_blocking(read).await else {
            return Machine::default();
        };
        let seen = match &driver {
            Some(_) => self.tool.ask(root).await,
            None => Err(smi::Silent::NoDriver),
        };
        Machine::of(on_bus, driver, seen, toolkit)
    }
}
