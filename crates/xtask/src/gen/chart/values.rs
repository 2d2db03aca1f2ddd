//! The table of values for people, from `values.yaml` itself: a key with a comment above it is a value.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One settable value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Keys joined by dots.
    pub(super) path: String,
    /// Default, as JSON.
    pub(super) default: String,
    /// The comment above it.
    pub(super) meaning: String,
}

/// Rows of a Markdown table.
pub(super) fn table(yaml: &str) -> Result<String> {
    let mut rows = String::new();
    for setting in settings(yaml)? {
        writeln!(
            rows,
            "| `{}` | `{}` | {} |",
            setting.path,
            setting.default,
            setting.meaning.replace('|', "\\|")
        )?;
    }
    Ok(rows)
}

/// Every value, in the file's order.
pub(super) fn settings(yaml: &str) -> Result<Vec<Setting>> {
    let values: Value = serde_saphyr::from_str(yaml)?;
    let mut settings = Vec::new();
    let mut keys: Vec<&str> = Vec::new();
    let mut comment = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        if let Some(words) = text.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let meaning = std::mem::take(&mut comment).join(" ");
        let Some((key, _)) = text.split_once(':') else {
            continue;
        };
        keys.truncate((line.len() - text.len()) / 2);
        keys.push(key);
        if !meaning.is_empty() {
            let pointer = format!("/{}", keys.join("/"));
            let default = values
                .pointer(&pointer)
                .with_context(|| format!("no value at {pointer}"))?;
            settings.push(Setting {
                path: keys.join("."),
                default: default.to_string(),
                meaning,
            });
        }
    }
    Ok(settings)
}
