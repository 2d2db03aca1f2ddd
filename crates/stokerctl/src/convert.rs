//! Kamaji's manifests as Stoker's: group, labels and annotations renamed, what Stoker has not is left out and named.

mod kamaji;
mod prune;

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cli::ConvertArguments;
use crate::print::{note, out, yaml};

pub(crate) use kamaji::Converted;

/// Converts files, prints the result and every warning.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn convert(wanted: &ConvertArguments) -> Result<ExitCode> {
    let mut documents = Vec::new();
    for path in &wanted.files {
        let text = read(path).with_context(|| format!("reading {}", path.display()))?;
        documents.extend(parse(&text).with_context(|| format!("reading {}", path.display()))?);
    }
    let Converted { objects, warnings } = kamaji::convert(documents);
    for warning in &warnings {
        note(&format!("warning: {warning}"));
    }
    let text = rendered(&objects)?;
    out(&text)?;
    note(&format!(
        "{} objects, {} warnings; `kubectl apply --dry-run=server -f` says what the API server makes of them. \
         A control plane made from them is new and empty: no data is taken over",
        objects.len(),
        warnings.len()
    ));
    if wanted.strict && !warnings.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

/// The objects of a file, those of lists one by one.
fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("it is no YAML")?;
    let mut objects = Vec::new();
    for document in documents {
        match document.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned()),
            None if document.is_null() => {}
            None => objects.push(document),
        }
    }
    Ok(objects)
}

fn rendered(objects: &[Value]) -> Result<String> {
    let texts = objects.iter().map(yaml).collect::<Result<Vec<_>>>()?;
    Ok(texts.join("---\n"))
}

#[cfg(test)]
mod tests;
