//! To standard output, and notes for people beside it.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What was asked for.
///
/// # Errors
/// Nobody reads it any more.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).context("writing")?;
    out.flush().context("writing")
}

/// What is good to know: standard error, so that the output can be piped.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// As JSON, with a line's end.
///
/// # Errors
/// It is not JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// As YAML, with a line's end.
///
/// # Errors
/// It is not YAML.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String> {
    // Through JSON: what is `null` or skipped there is so here.
    let value = serde_json::to_value(value)?;
    let mut text = serde_saphyr::to_string(&value).context("writing YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
