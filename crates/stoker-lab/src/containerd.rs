//! containerd on a host.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::host::Host;
use crate::host::supervisor::Program;
use crate::images::pause_reference;
use crate::machine::Machine;
use crate::versions::KubernetesVersion;

/// Socket of containerd inside every host.
pub(crate) const SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Configures and starts containerd, and waits until it answers.
pub(crate) async fn start(
    host: &Host,
    machine: &Machine,
    version: KubernetesVersion,
) -> Result<()> {
    host.write("/etc/containerd/config.toml", &config(machine, version))?;
    host.keep_running(&Program {
        name: "containerd".into(),
        command: vec!["containerd".into()],
        ..Program::default()
    })?;
    let begun = Instant::now();
    while let Err(error) = host.run(["ctr", "version"]).await {
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "containerd on {} does not answer ({error:#}): {}",
            host.name(),
            host.log_end("containerd")
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn config(machine: &Machine, version: KubernetesVersion) -> String {
    let pause = pause_reference(version);
    // Without the capability runc fails with "can't get final child's PID from pipe: EOF".
    let restrict = !machine.may_lower_oom_score;
    format!(
        r#"version = 3
# Both would write below /opt, outside the host's state.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = {restrict}

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/etc/cni/net.d"
"#
    )
}
