//! Columns for people.

/// Between two columns, as kubectl has it.
const GAP: usize = 3;

/// Lines under a heading, each column as wide as its widest entry; the last one ends where it ends.
pub(crate) fn render<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|title| title.chars().count());
    for row in rows {
        for (width, entry) in widths.iter_mut().zip(row) {
            *width = (*width).max(entry.chars().count());
        }
    }
    let mut text = line(&heading.map(str::to_owned), &widths);
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line<const N: usize>(entries: &[String; N], widths: &[usize; N]) -> String {
    let padded = entries.iter().zip(widths).map(|(entry, width)| {
        let width = width + GAP;
        format!("{entry:width$}")
    });
    let mut line = padded.collect::<String>().trim_end().to_owned();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = [["demo", "Ready", ""], ["a-longer-name", "-", "why"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let expected = "\
NAME            STATUS   REASON
demo            Ready
a-longer-name   -        why
";
        assert_eq!(render(["NAME", "STATUS", "REASON"], &rows), expected);
    }
}
