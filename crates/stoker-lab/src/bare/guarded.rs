//! A child process that cannot outlive this one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Ends the program as soon as standard input closes, which the kernel does even for a killed parent;
/// and itself when the program ends. Then it removes the directory when nobody is left to do that, as when a test was
/// killed or keeps the value until its end.
const GUARD: &str = r#""$@" & child=$!
(cat >/dev/null; kill -KILL $child) <&3 2>/dev/null & guard=$!
wait $child; status=$?
kill $guard 2>/dev/null
(sleep 1; [ -e /proc/$PPID ] || rm -rf "$DIRECTORY") &
exit $status"#;

/// The guard with its program, whose files are in `directory`.
fn guard(program: &Path, arguments: &[String], directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec 3<&0\n{GUARD}"), "guard"])
        .arg(program)
        .args(arguments)
        .env("DIRECTORY", directory);
    command
}

/// A running program with its output in a log file.
#[derive(Debug)]
pub(super) struct Guarded {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Guarded {
    pub(super) fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        Ok(Self {
            child: spawn(program, arguments, log)?,
            program: program.into(),
            arguments: arguments.into(),
            log: log.into(),
        })
    }

    /// Kills the program and starts it again.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.end();
        self.child = spawn(&self.program, &self.arguments, &self.log)?;
        Ok(())
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        // The guard has killed the program; nothing to do about a failure here.
        let _ = self.child.wait();
    }

    /// An error with the end of the log when the program has ended.
    pub(super) fn still_running(&mut self) -> Result<()> {
        match self
            .child
            .try_wait()
            .context("looking at a child process")?
        {
            None => Ok(()),
            Some(status) => bail!("ended with {status}: {}", self.log_end()),
        }
    }

    pub(super) fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Child> {
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    let directory = log.parent().context("a log in a directory")?;
    guard(program, arguments, directory)
        .stdin(Stdio::piped())
        .stdout(output.try_clone().context("sharing the log file")?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_program_ends_with_its_value() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 60", mark.display());
        let log = directory.path().join("log");
        let guarded = Guarded::start(Path::new("sh"), &["-c".into(), script], &log).unwrap();
        let begun = Instant::now();
        let pid = loop {
            let text = std::fs::read_to_string(&mark).unwrap_or_default();
            if let Ok(pid) = text.trim().parse::<u32>() {
                break pid;
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "not started");
            std::thread::sleep(Duration::from_millis(10));
        };
        drop(guarded);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn the_directory_goes_after_a_killed_parent() {
        let directory = tempfile::tempdir().unwrap().keep();
        let guard = guard(Path::new("sleep"), &["60".into()], &directory);
        let script = r#"exec 4<&0; "$@" <&4 & sleep 0.3; kill -KILL $$"#;
        let mut parent = Command::new("sh")
            .args(["-c", script, "parent"])
            .arg(guard.get_program())
            .args(guard.get_args())
            .env("DIRECTORY", &directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let input = parent.stdin.take();
        parent.wait().unwrap();
        assert!(directory.exists());
        drop(input);
        let begun = Instant::now();
        while directory.exists() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is left");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
