//! A supervised etcd on a host: the management cluster's and the pool's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::command::{program, run};
use crate::host::Host;
use crate::host::supervisor::Program;

/// How an etcd is started.
#[derive(Debug, Clone)]
pub(crate) struct EtcdPlan<'a> {
    pub(crate) binaries: &'a Path,
    /// Directory with `<authority>.crt`, `<server>.crt` and `<server>.key`.
    pub(crate) pki: &'a Path,
    pub(crate) authority: &'a str,
    pub(crate) server: &'a str,
    /// Whether writes wait for the disk, as they do for real users.
    pub(crate) sync: bool,
}

impl EtcdPlan<'_> {
    pub(crate) fn program(&self, address: Ipv4Addr) -> Program {
        let file = |name: &str, ending: &str| self.pki.join(format!("{name}.{ending}"));
        let (client, peer) = (
            format!("https://{address}:2379"),
            format!("https://{address}:2380"),
        );
        let [ca, cert, key] = [
            file(self.authority, "crt"),
            file(self.server, "crt"),
            file(self.server, "key"),
        ]
        .map(|path| path.display().to_string());
        let mut command = vec![
            self.binaries.join("etcd").display().to_string(),
            "--name=lab".into(),
            "--data-dir=/var/lib/etcd".into(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=lab={peer}"),
            "--client-cert-auth".into(),
            "--peer-client-cert-auth".into(),
            format!("--trusted-ca-file={ca}"),
            format!("--cert-file={cert}"),
            format!("--key-file={key}"),
            format!("--peer-trusted-ca-file={ca}"),
            format!("--peer-cert-file={cert}"),
            format!("--peer-key-file={key}"),
            // The gateway does not know who the client is, so access control would not hold there.
            "--enable-grpc-gateway=false".into(),
            // The fallback; API servers or the operator compact more often.
            "--auto-compaction-mode=periodic".into(),
            "--auto-compaction-retention=30m".into(),
            "--quota-backend-bytes=8589934592".into(),
        ];
        if !self.sync {
            command.push("--unsafe-no-fsync".into());
        }
        Program {
            name: "etcd".into(),
            command,
            ..Program::default()
        }
    }
}

/// A way to talk to one of the lab's etcds.
#[derive(Debug, Clone)]
pub struct EtcdAccess {
    /// URL of the client port.
    pub endpoint: String,
    /// File with the PEM of the authority.
    pub authority: PathBuf,
    /// File with the client certificate.
    pub certificate: PathBuf,
    /// File with its key.
    pub key: PathBuf,
    pub(crate) binaries: PathBuf,
}

impl EtcdAccess {
    /// An `etcdctl` with endpoint and credentials.
    #[must_use]
    pub fn etcdctl(&self) -> Command {
        let mut command = program(
            self.binaries.join("etcdctl"),
            ["--endpoints", &self.endpoint],
        );
        command.arg("--cacert").arg(&self.authority);
        command
            .arg("--cert")
            .arg(&self.certificate)
            .arg("--key")
            .arg(&self.key);
        command
    }

    pub(crate) async fn wait_healthy(&self, host: &Host) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = run(self.etcdctl().args(["endpoint", "health"])).await {
            ensure!(
                begun.elapsed() < Duration::from_secs(30),
                "etcd on {} is not healthy ({error:#}): {}",
                host.name(),
                host.log_end("etcd")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
