//! Where a lab keeps what it makes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Bulk state of all labs: etcd data, container layers, logs. A lab's part goes when the lab goes.
pub(crate) const STATE: &str = "/var/lib/stoker-lab";
/// Control group of all labs, relative to each tree.
pub(crate) const CONTROL_GROUPS: &str = "stoker-lab";
/// Long enough for people, short enough for derived names.
const NAME_LIMIT: usize = 20;

/// Directories of one lab.
#[derive(Debug, Clone)]
pub struct Paths {
    lab: String,
}

impl Paths {
    /// The directories of the lab `name`.
    ///
    /// # Errors
    /// When the name is not lower-case letters, digits and dashes, or longer than 20.
    pub fn of(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= NAME_LIMIT && name.chars().all(plain),
            "a lab's name is at most {NAME_LIMIT} of a-z, 0-9 and dash; `{name}` is not"
        );
        Ok(Self {
            lab: name.to_owned(),
        })
    }

    /// Name of the lab.
    #[must_use]
    pub fn lab(&self) -> &str {
        &self.lab
    }

    /// Bulk state of this lab.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        Path::new(STATE).join(&self.lab)
    }

    /// State of one host.
    #[must_use]
    pub fn host(&self, name: &str) -> PathBuf {
        self.state().join("hosts").join(name)
    }

    /// Certificates of the management cluster.
    #[must_use]
    pub fn management_pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// Certificates of the pool.
    #[must_use]
    pub fn pool_pki(&self) -> PathBuf {
        self.state().join("pool-pki")
    }

    /// What people use: kubeconfigs and `bin`. `.stoker` of the checkout for the lab `demo`, a directory
    /// below it for any other.
    #[must_use]
    pub fn people(&self) -> PathBuf {
        let base = checkout().join(".stoker");
        if self.lab == "demo" {
            base
        } else {
            base.join(&self.lab)
        }
    }

    /// The kubeconfig for `name`: `management` or a tenant.
    #[must_use]
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.people().join(format!("{name}.kubeconfig"))
    }

    /// File that is there in a lab of both IP families.
    pub(crate) fn dual_stack_mark(&self) -> PathBuf {
        self.state().join("dual-stack")
    }

    /// Control group of this lab, relative to each tree.
    #[must_use]
    pub fn control_group(&self) -> String {
        format!("{CONTROL_GROUPS}/{}", self.lab)
    }

    /// Removes the bulk state, and the common directory when this was the last lab.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub(crate) fn remove_state(&self) -> Result<()> {
        let state = self.state();
        if state.exists() {
            std::fs::remove_dir_all(&state)
                .with_context(|| format!("removing {}", state.display()))?;
        }
        // Fails while another lab is there, which is right.
        let _ = std::fs::remove_dir(STATE);
        Ok(())
    }
}

/// Names of all labs that have state on this machine.
#[must_use]
pub fn labs() -> Vec<String> {
    let entries = std::fs::read_dir(STATE).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Root of the checkout that this program was built from.
#[must_use]
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
