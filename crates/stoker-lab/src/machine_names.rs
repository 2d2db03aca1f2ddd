//! Tenants' names in the machine's own `/etc/hosts`, for kubectl in its shell, as long as the lab is there.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::lab::Lab;

const HOSTS: &str = "/etc/hosts";

impl Lab {
    /// Has the machine itself know the names that the lab's hosts look up.
    ///
    /// # Errors
    /// When its file cannot be written; it says which lines it should have.
    pub fn tell_machine(&self) -> Result<()> {
        let records = std::fs::read_to_string(self.records()).unwrap_or_default();
        self.rewrite(&records)
            .with_context(|| format!("{HOSTS} should have:\n{records}"))
    }

    /// Removes them.
    pub(crate) fn take_back_names(&self) -> Result<()> {
        self.rewrite("")
    }

    fn rewrite(&self, records: &str) -> Result<()> {
        let path = Path::new(HOSTS);
        let present = std::fs::read_to_string(path).unwrap_or_default();
        let wanted = with_names(&present, self.paths().lab(), records);
        if wanted != present {
            // In place: containers have it as a mount, which nothing can take the place of.
            std::fs::write(path, wanted).with_context(|| format!("writing {HOSTS}"))?;
        }
        Ok(())
    }
}

/// The file with these names of a lab, and with no others of it.
fn with_names(present: &str, lab: &str, records: &str) -> String {
    let mark = format!(" # stoker-lab {lab}");
    let others = present.split_inclusive('\n');
    let others = others.filter(|line| !line.trim_end().ends_with(&mark));
    let mut text: String = others.collect();
    for record in records.lines().filter(|record| !record.is_empty()) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.extend([record, &mark, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_lab_come_change_and_go_and_nothing_else_does() {
        let machine = "127.0.0.1 localhost\n\n# mine\n10.0.0.1\tnas\n";
        let one = with_names(machine, "demo", "172.30.0.9 a.test\n");
        assert_eq!(
            one,
            format!("{machine}172.30.0.9 a.test # stoker-lab demo\n")
        );
        let both = with_names(&one, "demo2", "172.30.0.7 b.test\n");
        let moved = with_names(&both, "demo", "172.30.0.8 a.test\n");
        assert!(moved.contains("172.30.0.8 a.test") && !moved.contains("172.30.0.9"));
        assert_eq!(with_names(&moved, "demo", "172.30.0.8 a.test\n"), moved);
        let gone = with_names(&with_names(&moved, "demo", ""), "demo2", "");
        assert_eq!(gone, machine);
    }
}
