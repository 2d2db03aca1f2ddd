//! etcd as a pool runs it: one or several members, real fsync, TLS, access control on, and the HTTP
//! gateway on, too, so that its way in is tested.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::UserAddOptions;
use stoker_lab::credentials;
use stoker_lab::ports::free_port;
use stoker_lab::steps::Steps;
use stoker_lab::upstream::Upstream;
use stoker_pki::Authority;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::clients::client;

/// A running etcd cluster; it ends and its data goes when the value is dropped.
pub(crate) struct Cluster {
    members: Vec<Option<Child>>,
    addresses: Vec<String>,
    authority: Authority,
    _directory: TempDir,
}

impl Cluster {
    /// `size` members of `version`, with an authority of their own.
    pub(crate) async fn start(version: &str, size: usize) -> Result<Self> {
        Self::start_with(version, size, credentials::authority("etcd-cluster")?).await
    }

    /// The same with an authority that others may share.
    pub(crate) async fn start_with(
        version: &str,
        size: usize,
        authority: Authority,
    ) -> Result<Self> {
        let etcd = Upstream::open(Steps::new())?
            .etcd(version)
            .await?
            .join("etcd");
        let directory = TempDir::with_prefix("stoker-etcd-cluster-")?;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let server = credentials::server(&authority, "etcd", &["localhost"], &[address])?;
        credentials::write_authority(directory.path(), "ca", &authority)?;
        credentials::write_leaf(directory.path(), "server", &server)?;
        let ports = (0..2 * size)
            .map(|_| free_port())
            .collect::<Result<Vec<_>>>()?;
        let (client_ports, peer_ports) = ports.split_at(size);
        let peer = |n: usize| format!("http://127.0.0.1:{}", peer_ports[n]);
        let all: Vec<_> = (0..size).map(|n| format!("m{n}={}", peer(n))).collect();
        let mut members = Vec::new();
        for (n, port) in client_ports.iter().enumerate() {
            let names = Names {
                n,
                client: format!("https://127.0.0.1:{port}"),
                peer: peer(n),
            };
            members.push(Some(launch(
                &etcd,
                directory.path(),
                &names,
                &all.join(","),
            )?));
        }
        let addresses = client_ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let cluster = Self {
            members,
            addresses,
            authority,
            _directory: directory,
        };
        cluster.secure().await?;
        Ok(cluster)
    }

    /// The members' client addresses, as host:port.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// The authority of servers and clients.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The same authority once more, for a second cluster.
    pub(crate) fn copy_of_authority(&self) -> Result<Authority> {
        Ok(Authority::from_pem(
            self.authority.certificate(),
            self.authority.key().as_pem(),
        )?)
    }

    /// The client address of a member that does not lead.
    pub(crate) async fn follower(&self) -> Result<String> {
        let root = credentials::client(&self.authority, "root", None)?;
        for address in &self.addresses {
            let mut client = client(address, &self.authority, Some(&root)).await?;
            let status = client.status().await?;
            if status
                .header()
                .is_some_and(|header| header.member_id() != status.leader())
            {
                return Ok(address.clone());
            }
        }
        bail!("every member leads")
    }

    /// Ends a member as a crash would.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member] = None;
        // The process ends in the background; until its port is closed it is not dead.
        let begun = Instant::now();
        while std::net::TcpStream::connect(&self.addresses[member]).is_ok() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "member {member} does not end"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn secure(&self) -> Result<()> {
        let root = credentials::client(&self.authority, "root", None)?;
        let begun = Instant::now();
        for address in &self.addresses {
            loop {
                let mut client = client(address, &self.authority, Some(&root)).await?;
                // Linearizable: there is a leader and this member follows it.
                let Err(error) = client.get("health", None).await else {
                    break;
                };
                ensure!(
                    begun.elapsed() < Duration::from_secs(20),
                    "etcd is not healthy: {error}"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let mut client = client(&self.addresses[0], &self.authority, Some(&root)).await?;
        client
            .user_add("root", "", Some(UserAddOptions::new().with_no_pwd()))
            .await?;
        client.user_grant_role("root", "root").await?;
        client.auth_enable().await?;
        Ok(())
    }
}

struct Names {
    n: usize,
    client: String,
    peer: String,
}

fn launch(etcd: &PathBuf, directory: &Path, names: &Names, all: &str) -> Result<Child> {
    let Names { n, client, peer } = names;
    let file = |name: &str| directory.join(name).display().to_string();
    let log = std::fs::File::create(directory.join(format!("m{n}.log")))?;
    Command::new(etcd)
        .arg(format!("--name=m{n}"))
        .arg(format!("--data-dir={}", file(&format!("m{n}"))))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster={all}"))
        .args(["--client-cert-auth", "--log-level=warn"])
        .arg(format!("--trusted-ca-file={}", file("ca.crt")))
        .arg(format!("--cert-file={}", file("server.crt")))
        .arg(format!("--key-file={}", file("server.key")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", etcd.display()))
}
