//! Running other programs: one way, whose errors carry the command line and the end of what it said.

use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::paths::checkout;

/// Lines of a failed program's output that an error repeats.
const LINES_IN_ERROR: usize = 25;

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0; the error has the end of its output.
pub async fn run(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("could not start `{line}`"))?;
    finish(&line, &output)
}

/// Like [`run`], with `input` on the program's standard input.
///
/// # Errors
/// As [`run`].
pub async fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let line = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start `{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The program may end without reading all; its own status says why.
        let _ = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .with_context(|| format!("waiting for `{line}`"))?;
    finish(&line, &output)
}

/// A program with its arguments, ready for [`run`].
pub fn program<I, S>(name: impl AsRef<std::ffi::OsStr>, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// Cargo on this checkout, as a person would start it.
///
/// What Cargo tells the programs that it runs (name and directory of their package) is taken away: build scripts that
/// read it, such as ring's, would run again, and with them nearly every crate be compiled again.
pub fn cargo<I, S>(arguments: I) -> std::process::Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(arguments).current_dir(checkout());
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            name == "OUT_DIR"
                || name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
        });
        if told {
            command.env_remove(name);
        }
    }
    command
}

fn finish(line: &str, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
    let end = &said[said.len().saturating_sub(LINES_IN_ERROR)..];
    bail!("`{line}` ended with {}:\n{}", output.status, end.join("\n"))
}

fn describe(command: &Command) -> String {
    let command = command.as_std();
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_has_the_command_and_what_it_said() {
        let error = run(&mut program("sh", ["-c", "echo why >&2; exit 3"]))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c") && text.contains("why") && text.contains('3'),
            "{text}"
        );
    }

    #[tokio::test]
    async fn input_reaches_the_program() {
        assert_eq!(
            run_with_input(&mut program("cat", [""; 0]), b"hello")
                .await
                .unwrap(),
            "hello"
        );
    }
}
