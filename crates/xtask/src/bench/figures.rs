//! Medians and tables.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Least, middle and greatest of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of at least one figure.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted.first(), sorted.last());
        let (&min, &max) = min.zip(max).context("nothing was measured")?;
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Ok(Self { min, median, max })
    }

    /// Of durations, in seconds.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn of_seconds(durations: impl IntoIterator<Item = Duration>) -> Result<Self> {
        Self::of(durations.into_iter().map(|duration| duration.as_secs_f64()))
    }

    /// `median (min to max)` with that many digits.
    pub(super) fn text(&self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

/// The mean; 0 of nothing.
pub(super) fn mean(figures: &[f64]) -> f64 {
    if figures.is_empty() {
        return 0.0;
    }
    figures.iter().sum::<f64>() / count(figures.len())
}

/// A number of things, to divide by.
pub(super) fn count(things: usize) -> f64 {
    u32::try_from(things).map_or(f64::INFINITY, f64::from)
}

/// Rows of text with a title.
#[derive(Debug)]
pub(super) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with the names of its columns.
    pub(super) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            rows: vec![columns.iter().map(|&column| column.to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: &[&str]) {
        self.rows
            .push(cells.iter().map(|&cell| cell.to_owned()).collect());
    }

    /// Prints to standard output.
    ///
    /// # Errors
    /// When nobody reads.
    pub(super) fn print(&self, markdown: bool) -> Result<()> {
        let text = if markdown {
            self.markdown()
        } else {
            self.plain()
        };
        std::io::stdout()
            .lock()
            .write_all(text.as_bytes())
            .context("printing a table")
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n### {}\n\n", self.title);
        for (index, row) in self.rows.iter().enumerate() {
            // Writing to a String never fails.
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if index == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        text
    }

    fn plain(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = format!("\n{}\n", self.title);
        for row in &self.rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, &width)| format!("{cell:width$}"))
                .collect();
            let _ = writeln!(text, "  {}", line.join("  ").trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_middle_ones() {
        let odd = Spread::of([3.0, 1.0, 9.0]).unwrap();
        assert_eq!(odd.text(1), "3.0 (1.0 to 9.0)");
        let even = Spread::of([4.0, 1.0, 9.0, 2.0]).unwrap();
        assert_eq!(even.text(1), "3.0 (1.0 to 9.0)");
        assert!(Spread::of([]).is_err());
    }

    #[test]
    fn a_table_is_aligned_or_markdown() {
        let mut table = Table::new("births", &["what", "seconds"]);
        table.row(&["Stoker", "4.0"]);
        assert_eq!(
            table.plain(),
            "\nbirths\n  what    seconds\n  Stoker  4.0\n"
        );
        assert_eq!(
            table.markdown(),
            "\n### births\n\n| what | seconds |\n|---|---|\n| Stoker | 4.0 |\n"
        );
    }
}
