//! One etcd member on loopback, plain or with TLS, client certificates and access control.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stoker_pki::{Authority, KeyedCertificate};
use tempfile::TempDir;
use tokio::process::Command;

use super::guarded::Guarded;
use crate::command::{program, run};
use crate::credentials;
use crate::ports::free_ports;
use crate::steps::Steps;
use crate::upstream::Upstream;

/// A running etcd; it ends and its data goes when the value is dropped.
#[derive(Debug)]
pub struct BareEtcd {
    process: Option<Guarded>,
    binaries: PathBuf,
    authority: Option<Authority>,
    port: u16,
    peer_port: u16,
    directory: TempDir,
}

impl BareEtcd {
    /// An etcd of a version of [`crate::versions`] without TLS. It does not sync to disk.
    ///
    /// # Errors
    /// When it cannot be built, or is not healthy within 20 s; the error has the end of its log.
    pub async fn start(version: &str) -> Result<Self> {
        Self::launch(version, None).await
    }

    /// An etcd with TLS, client certificates required and access control on; the user `root` is the
    /// certificate with that common name.
    ///
    /// # Errors
    /// As [`BareEtcd::start`].
    pub async fn start_secured(version: &str) -> Result<Self> {
        let etcd = Self::launch(version, Some(credentials::authority("bare-etcd")?)).await?;
        for arguments in [
            &["user", "add", "root", "--no-password"][..],
            &["user", "grant-role", "root", "root"],
            &["auth", "enable"],
        ] {
            run(etcd.etcdctl().args(arguments))
                .await
                .context("turning access control on")?;
        }
        Ok(etcd)
    }

    /// URL of the client port on 127.0.0.1.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.authority.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// PEM of the authority of server and clients; `None` without TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// A client certificate for the etcd user `name`.
    ///
    /// # Errors
    /// When this etcd has no TLS.
    pub fn client_certificate(&self, name: &str) -> Result<KeyedCertificate> {
        let authority = self
            .authority
            .as_ref()
            .context("this etcd was started without TLS")?;
        credentials::client(authority, name, None)
    }

    /// An `etcdctl` for this etcd, as `root` when it has TLS.
    #[must_use]
    pub fn etcdctl(&self) -> Command {
        let mut command = program(self.binaries.join("etcdctl"), ["--endpoints"]);
        command.arg(self.endpoint());
        if self.authority.is_some() {
            let file = |name: &str| self.directory.path().join(name);
            command.arg("--cacert").arg(file("ca.crt"));
            command
                .arg("--cert")
                .arg(file("root.crt"))
                .arg("--key")
                .arg(file("root.key"));
        }
        command
    }

    /// Kills the process as a crash would; data and port stay.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the process again on the same data and port, and waits until it is healthy.
    ///
    /// # Errors
    /// When it is not healthy within 20 s.
    pub async fn restart(&mut self) -> Result<()> {
        self.process = None;
        let log = self.directory.path().join("etcd.log");
        self.process = Some(Guarded::start(
            &self.binaries.join("etcd"),
            &self.arguments(),
            &log,
        )?);
        self.wait_healthy().await
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    async fn launch(version: &str, authority: Option<Authority>) -> Result<Self> {
        let binaries = Upstream::open(Steps::new())?.etcd(version).await?;
        let directory = TempDir::with_prefix("stoker-etcd-").context("making a directory")?;
        if let Some(authority) = &authority {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let server = credentials::server(authority, "etcd", &["localhost"], &[address])?;
            credentials::write_authority(directory.path(), "ca", authority)?;
            credentials::write_leaf(directory.path(), "server", &server)?;
            let root = credentials::client(authority, "root", None)?;
            credentials::write_leaf(directory.path(), "root", &root)?;
        }
        let [port, peer_port] = free_ports()?;
        let mut etcd = Self {
            process: None,
            binaries,
            authority,
            port,
            peer_port,
            directory,
        };
        etcd.restart().await?;
        Ok(etcd)
    }

    fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        let (client, peer) = (
            self.endpoint(),
            format!("http://127.0.0.1:{}", self.peer_port),
        );
        let mut arguments = vec![
            "--name=bare".to_owned(),
            format!("--data-dir={}", file("data")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=bare={peer}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        if self.authority.is_some() {
            arguments.extend([
                "--client-cert-auth".to_owned(),
                "--enable-grpc-gateway=false".to_owned(),
                format!("--trusted-ca-file={}", file("ca.crt")),
                format!("--cert-file={}", file("server.crt")),
                format!("--key-file={}", file("server.key")),
            ]);
        }
        arguments
    }

    async fn wait_healthy(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let process = self.process.as_mut().context("etcd was not started")?;
            process.still_running().context("etcd")?;
            let health = run(self.etcdctl().args(["endpoint", "health"])).await;
            let Err(error) = health else { return Ok(()) };
            ensure!(
                begun.elapsed() < Duration::from_secs(20),
                "etcd is not healthy: {error:#}"
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::ETCD;

    #[tokio::test]
    async fn access_control_is_on_and_data_outlives_a_crash() {
        let mut etcd = BareEtcd::start_secured(ETCD).await.unwrap();
        run(etcd.etcdctl().args(["put", "a", "b"])).await.unwrap();
        etcd.restart().await.unwrap();
        assert_eq!(
            run(etcd.etcdctl().args(["get", "a"])).await.unwrap(),
            "a\nb\n"
        );

        let stranger = etcd.client_certificate("stranger").unwrap();
        credentials::write_leaf(etcd.directory(), "root", &stranger).unwrap();
        let refused = run(etcd.etcdctl().args(["get", "a"])).await.unwrap_err();
        assert!(
            refused.to_string().contains("permission denied"),
            "{refused}"
        );
    }
}
