//! Two network namespaces, certificates, the two programs, a target.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use stoker_lab::bare::Cable;
use stoker_lab::command::cargo;
use stoker_pki::{Authority, LeafRequest, LeafUsage};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::super::machine::process_seconds;
use super::load::{self, Way};

const NEAR: &str = "10.77.0.1";
const FAR: &str = "10.77.0.2";
const TARGET_PORT: u16 = 4443;
const TUNNEL_PORT: u16 = 8132;

/// Everything, until dropped.
#[derive(Debug)]
pub(super) struct Ground {
    dir: TempDir,
    authority: Authority,
    agent: PathBuf,
    warden: Program,
    /// The first is measured.
    agents: Vec<Program>,
    cable: Cable,
}

#[derive(Debug)]
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ground {
    pub(super) fn prepare() -> Result<Self> {
        let agent = program("stoker-node", "STOKER_NODE")?;
        let dir = TempDir::new()?;
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate("kubernetes", Duration::days(1), now)?;
        std::fs::write(dir.path().join("ca.crt"), authority.certificate())?;
        for (name, address) in [("warden", NEAR), ("target", FAR)] {
            let pair = authority.issue(&leaf(name, LeafUsage::Server, Some(address)), now)?;
            std::fs::write(dir.path().join(format!("{name}.crt")), &pair.certificate)?;
            std::fs::write(dir.path().join(format!("{name}.key")), pair.key.as_pem())?;
        }
        let cable = Cable::plug(&format!("{NEAR}/24"), &format!("{FAR}/24"))?;
        let files = dir.path().to_owned();
        cable.there(move || load::serve(&files, &format!("{FAR}:{TARGET_PORT}")))??;
        let warden = warden(&program("stoker-warden", "STOKER_WARDEN")?, &dir)?;
        let mut ground = Self {
            dir,
            authority,
            agent,
            warden,
            agents: Vec::new(),
            cable,
        };
        ground.add_agents(1)?;
        Ok(ground)
    }

    /// To the same target: direct, and through the tunnel.
    pub(super) fn ways(&self) -> [Way; 2] {
        let target = format!("{FAR}:{TARGET_PORT}");
        let direct = Way::new(self.authority.certificate(), &target, None);
        let socket = self.dir.path().join("tunnel.sock");
        [
            direct,
            Way::new(self.authority.certificate(), &target, Some(socket)),
        ]
    }

    /// What is between management and nodes.
    pub(super) fn cable(&self) -> &Cable {
        &self.cable
    }

    /// More nodes, each with its agent.
    pub(super) fn add_agents(&mut self, more: usize) -> Result<()> {
        for _ in 0..more {
            let name = format!("node-{}", self.agents.len());
            // One is attested; its address is where the target is.
            let address = self.agents.is_empty().then_some(FAR);
            let now = OffsetDateTime::now_utc();
            let user = format!("system:node:{name}");
            for (kind, usage) in [("client", LeafUsage::Client), ("server", LeafUsage::Server)] {
                let pair = self.authority.issue(&leaf(&user, usage, address), now)?;
                let text = format!("{}{}", pair.certificate, pair.key.as_pem());
                std::fs::write(self.dir.path().join(format!("{name}-{kind}.pem")), text)?;
            }
            let file = |name: &str| self.dir.path().join(name);
            let mut agent = Command::new(&self.agent);
            agent
                .args([
                    "tunnel",
                    &format!("--server={NEAR}:{TUNNEL_PORT}"),
                    "--server-ca",
                ])
                .arg(file("ca.crt"))
                .arg("--client-certificate")
                .arg(file(&format!("{name}-client.pem")))
                .arg("--node-certificate")
                .arg(file(&format!("{name}-server.pem")));
            agent.stdin(Stdio::null()).stderr(Stdio::null());
            let child = self.cable.there(move || agent.spawn())?;
            let child = child.context("starting stoker-node")?;
            self.agents.push(Program(child));
        }
        Ok(())
    }

    /// CPU time that the warden and the first agent have used, seconds.
    pub(super) fn cpu(&self) -> Result<[f64; 2]> {
        let agent = self.agents.first().context("no agent")?;
        Ok([
            process_seconds(self.warden.0.id())?,
            process_seconds(agent.0.id())?,
        ])
    }

    /// Of the warden and of the first agent, kB.
    pub(super) fn memory(&self) -> Result<[u64; 2]> {
        let agent = self.agents.first().context("no agent")?;
        Ok([pss(self.warden.0.id())?, pss(agent.0.id())?])
    }
}

/// A release program, as it ships; or the one that the variable names, as on the lab.
fn program(package: &str, variable: &str) -> Result<PathBuf> {
    if let Some(program) = std::env::var_os(variable) {
        return Ok(program.into());
    }
    let built = cargo(["build", "--quiet", "--release", "-p", package])
        .status()
        .context("starting cargo")?;
    ensure!(built.success(), "{package} does not build");
    // …/target/debug/xtask
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("no target directory")?;
    Ok(target.join("release").join(package))
}

fn warden(program: &Path, dir: &TempDir) -> Result<Program> {
    let file = |name: &str| dir.path().join(name);
    let child = Command::new(program)
        .args(["--guard-address=127.0.0.1:10270", "--health-port=10271"])
        .arg(format!("--tunnel-port={TUNNEL_PORT}"))
        .arg("--tunnel-socket")
        .arg(file("tunnel.sock"))
        .arg("--tunnel-certificate")
        .arg(file("warden.crt"))
        .arg("--tunnel-key")
        .arg(file("warden.key"))
        .arg("--tunnel-client-ca")
        .arg(file("ca.crt"))
        .stderr(Stdio::null())
        .spawn()
        .context("starting the warden")?;
    Ok(Program(child))
}

fn leaf(common_name: &str, usage: LeafUsage, address: Option<&str>) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organizations: vec!["system:nodes".to_owned()],
        usage,
        dns_names: Vec::new(),
        ip_addresses: address
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        lifetime: Duration::hours(12),
    }
}

/// Proportional set size of a process, kB.
fn pss(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some(figure) => Ok(figure.parse()?),
        None => bail!("no Pss in {path}"),
    }
}
