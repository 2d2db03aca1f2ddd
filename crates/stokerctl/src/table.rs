//! Columns for people.

/// Between two columns, as kubectl has it.
const GAP: usize = 3;

/// Lines under a heading, each column as wide as its widest entry; the last one ends where it ends.
pub(crate) fn render<E: AsRef<str>, R: AsRef<[E]>>(heading: &[&str], rows: &[R]) -> String {
    let mut widths: Vec<_> = heading.iter().map(|title| title.chars().count()).collect();
    for row in rows {
        for (width, entry) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(entry.as_ref().chars().count());
        }
    }
    let mut text = line(heading, &widths);
    for row in rows {
        text.push_str(&line(row.as_ref(), &widths));
    }
    text
}

fn line<E: AsRef<str>>(entries: &[E], widths: &[usize]) -> String {
    let padded = entries.iter().zip(widths).map(|(entry, width)| {
        let (entry, width) = (entry.as_ref(), width + GAP);
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
        assert_eq!(render(&["NAME", "STATUS", "REASON"], &rows), expected);
    }
}
