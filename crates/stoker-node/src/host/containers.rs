//! The containers of this kubelet's pods, by the runtime's own tools. A runtime may have others: those of another kubelet, or
//! of whoever else works with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::service::find;

/// For one command. A pod's network may take a while to be torn down.
const PATIENCE: Duration = Duration::from_secs(90);
/// For what a removed container leaves behind to be gone.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
/// Label of each pod's and container's, by the kubelet.
const POD: &str = "io.kubernetes.pod.uid";

/// What speaks to the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    /// Of every runtime's interface.
    Crictl,
    /// Of containerd.
    Ctr,
}

struct Runtime<'a> {
    tool: Tool,
    program: PathBuf,
    /// As `unix:///run/containerd/containerd.sock`.
    endpoint: &'a str,
}

/// Removes the pods whose directories are below `kubelet`, and those that were there `before`, by the runtime at `endpoint`;
/// fails when one of them stays.
pub(super) async fn remove_pods(
    kubelet: &Path,
    before: BTreeSet<String>,
    endpoint: &str,
) -> Result<()> {
    let present = pods_of(kubelet)?;
    let Some(runtime) = Runtime::find(endpoint) else {
        ensure!(
            present.is_empty(),
            "{} pods of this node may have containers, and there is neither crictl nor ctr (of containerd) to remove them: \
             install one of them and run this again, or have --keep-containers leave them alone",
            present.len()
        );
        return Ok(());
    };
    let mut left = Vec::new();
    for pod in before.union(&present) {
        left.extend(runtime.clear(pod).await.with_context(|| {
            format!(
                "asking the runtime at {endpoint} for containers of this node: start it and run this again, or have \
                 --keep-containers leave them alone"
            )
        })?);
    }
    ensure!(
        left.is_empty(),
        "nothing was removed from {}, since these of the runtime at {endpoint} still work with it: {}. Remove them and run this \
         again, or have --keep-containers leave them alone",
        kubelet.display(),
        left.join(" ")
    );
    Ok(())
}

/// The uids of the pods that a kubelet has; those of static pods too.
pub(super) fn pods_of(kubelet: &Path) -> Result<BTreeSet<String>> {
    let place = kubelet.join("pods");
    let entries = match fs::read_dir(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(|| format!("reading {}", place.display()))?,
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", place.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Nothing else is a label's value, or can be written into a filter.
        let is_label = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if is_label && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(name);
        }
    }
    Ok(found)
}

impl<'a> Runtime<'a> {
    fn find(endpoint: &'a str) -> Option<Self> {
        let with = |(tool, name)| {
            find(name).map(|program| Self {
                tool,
                program,
                endpoint,
            })
        };
        [(Tool::Crictl, "crictl"), (Tool::Ctr, "ctr")]
            .into_iter()
            .find_map(with)
    }

    /// What the runtime has of a pod: sandboxes, or for `ctr` all containers.
    async fn of_pod(&self, pod: &str) -> Result<Vec<String>> {
        let said = self.run(&list(self.tool, pod)).await?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// Removes what there is of a pod, and says what stays.
    async fn clear(&self, pod: &str) -> Result<Vec<String>> {
        let begun = Instant::now();
        loop {
            let left = self.of_pod(pod).await?;
            if left.is_empty() || begun.elapsed() > SETTLE {
                return Ok(left);
            }
            for step in removal(self.tool, &left) {
                // A container without a process has none to be ended.
                if let Err(error) = self.run(&step).await {
                    tracing::debug!(pod, error = format!("{error:#}"), "not removed");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn run(&self, arguments: &[String]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .args(endpoint(self.tool, self.endpoint))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let name = || format!("{} {}", self.program.display(), arguments.join(" "));
        let output = timeout(PATIENCE, command.output()).await;
        let output = output
            .with_context(|| format!("{} has not ended within {PATIENCE:?}", name()))?
            .with_context(|| format!("running {}", name()))?;
        ensure!(
            output.status.success(),
            "{}: {}",
            name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Before every other argument: the runtime that the kubelet works with, not the tool's own choice.
fn endpoint(tool: Tool, endpoint: &str) -> Vec<String> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let arguments = match tool {
        // Two seconds by default, in which no pod is stopped.
        Tool::Crictl => ["--runtime-endpoint", endpoint, "--timeout", "60s"],
        Tool::Ctr => ["--address", path, "--namespace", "k8s.io"],
    };
    arguments.map(str::to_owned).into()
}

fn list(tool: Tool, pod: &str) -> Vec<String> {
    match tool {
        Tool::Crictl => words(&["pods", "--quiet", "--label", &format!("{POD}={pod}")]),
        Tool::Ctr => {
            let filter = format!("labels.{POD:?}=={pod:?}");
            words(&["containers", "list", "--quiet", &filter])
        }
    }
}

/// In this order.
fn removal(tool: Tool, found: &[String]) -> Vec<Vec<String>> {
    let one = |id: &String| match tool {
        Tool::Crictl => vec![words(&["rmp", "--force", id])],
        Tool::Ctr => vec![
            words(&["tasks", "delete", "--force", id]),
            words(&["containers", "delete", id]),
        ],
    };
    let kill = |id: &String| words(&["tasks", "kill", "--signal", "SIGKILL", id]);
    let kills = found.iter().filter(|_| tool == Tool::Ctr).map(kill);
    kills.chain(found.iter().flat_map(one)).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_this_kubelet_are_asked_for() {
        let kubelet = tempfile::tempdir().unwrap();
        assert!(pods_of(kubelet.path()).unwrap().is_empty());
        for name in ["0f3-a", "5d41402abc4b2a76b9719d911017c592", "a\"b"] {
            fs::create_dir_all(kubelet.path().join("pods").join(name)).unwrap();
        }
        fs::write(kubelet.path().join("pods/file"), "").unwrap();
        let found: Vec<_> = pods_of(kubelet.path()).unwrap().into_iter().collect();
        assert_eq!(found, ["0f3-a", "5d41402abc4b2a76b9719d911017c592"]);
        assert_eq!(
            list(Tool::Crictl, &found[0]).last().unwrap(),
            "io.kubernetes.pod.uid=0f3-a"
        );
        assert_eq!(
            list(Tool::Ctr, &found[0]).last().unwrap(),
            "labels.\"io.kubernetes.pod.uid\"==\"0f3-a\""
        );
    }

    #[test]
    fn the_runtime_is_the_one_that_the_kubelet_works_with() {
        let own = "unix:///run/own.sock";
        assert!(endpoint(Tool::Crictl, own).contains(&own.to_owned()));
        assert_eq!(endpoint(Tool::Ctr, own)[1], "/run/own.sock");
    }

    #[test]
    fn only_what_was_found_is_removed() {
        assert!(removal(Tool::Ctr, &[]).is_empty() && removal(Tool::Crictl, &[]).is_empty());
        let found = ["a".to_owned(), "b".to_owned()];
        for tool in [Tool::Crictl, Tool::Ctr] {
            let steps = removal(tool, &found);
            let is_of_found = |step: &Vec<String>| found.contains(step.last().unwrap());
            assert!(steps.iter().all(is_of_found), "{steps:?}");
        }
    }
}
