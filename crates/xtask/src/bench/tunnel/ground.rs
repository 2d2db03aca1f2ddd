//! Two network namespaces, certificates, the two programs, a target.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use stoker_lab::command::cargo;
use stoker_pki::{Authority, LeafRequest, LeafUsage};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

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
    programs: PathBuf,
    warden: Program,
    /// The first is measured.
    agents: Vec<Program>,
    node: Sender<Command>,
    started: Receiver<Result<Child>>,
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
        let programs = build()?;
        let dir = TempDir::new()?;
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate("kubernetes", Duration::days(1), now)?;
        std::fs::write(dir.path().join("ca.crt"), authority.certificate())?;
        for (name, address) in [("warden", NEAR), ("target", FAR)] {
            let pair = authority.issue(&leaf(name, LeafUsage::Server, Some(address)), now)?;
            std::fs::write(dir.path().join(format!("{name}.crt")), &pair.certificate)?;
            std::fs::write(dir.path().join(format!("{name}.key")), pair.key.as_pem())?;
        }
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace (are you root?)")?;
        let (node, started) = node_namespace(dir.path().to_owned())?;
        ip("link set lo up")?;
        ip(&format!("addr add {NEAR}/24 dev tunnel0"))?;
        ip("link set tunnel0 up")?;
        let warden = warden(&programs, &dir)?;
        let mut ground = Self {
            dir,
            authority,
            programs,
            warden,
            agents: Vec::new(),
            node,
            started,
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

    /// Limits the cable, both ways.
    pub(super) fn cable(&self, gigabit: bool) -> Result<()> {
        let change = if gigabit {
            "add dev DEV root tbf rate 1gbit burst 256k latency 20ms"
        } else {
            "del dev DEV root"
        };
        tc(Command::new("tc"), &change.replace("DEV", "tunnel0"))?;
        let mut far = Command::new("tc");
        far.arg("qdisc")
            .args(change.replace("DEV", "tunnel1").split(' '));
        let mut child = self.on_the_node(far)?;
        ensure!(child.wait()?.success(), "tc on the node failed");
        Ok(())
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
            let mut agent = Command::new(self.programs.join("stoker-node"));
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
            let child = self.on_the_node(agent)?;
            self.agents.push(Program(child));
        }
        Ok(())
    }

    /// Of the warden and of the first agent, kB.
    pub(super) fn memory(&self) -> Result<[u64; 2]> {
        let agent = self.agents.first().context("no agent")?;
        Ok([pss(self.warden.0.id())?, pss(agent.0.id())?])
    }

    fn on_the_node(&self, mut command: Command) -> Result<Child> {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        self.node.send(command).context("the node's thread ended")?;
        self.started.recv().context("the node's thread ended")?
    }
}

/// Release programs, as they ship.
fn build() -> Result<PathBuf> {
    let built = cargo([
        "build",
        "--quiet",
        "--release",
        "-p",
        "stoker-warden",
        "-p",
        "stoker-node",
    ])
    .status()
    .context("starting cargo")?;
    ensure!(built.success(), "the programs do not build");
    // …/target/debug/xtask
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("no target directory")?;
    Ok(target.join("release"))
}

fn warden(programs: &std::path::Path, dir: &TempDir) -> Result<Program> {
    let file = |name: &str| dir.path().join(name);
    let child = Command::new(programs.join("stoker-warden"))
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

/// A thread in a namespace of its own, with the target; what it is sent it starts there.
fn node_namespace(files: PathBuf) -> Result<(Sender<Command>, Receiver<Result<Child>>)> {
    let (node, commands) = channel::<Command>();
    let (starts, started) = channel();
    let (ready, is_ready) = channel();
    let (plugged, cable) = channel();
    thread::spawn(move || {
        let begun = unshare(CloneFlags::CLONE_NEWNET).map(|()| nix::unistd::gettid());
        let failed = begun.is_err();
        if ready.send(begun).is_err() || failed || cable.recv().is_err() {
            return;
        }
        let set_up = ip("link set lo up")
            .and_then(|()| ip(&format!("addr add {FAR}/24 dev tunnel1")))
            .and_then(|()| ip("link set tunnel1 up"))
            .and_then(|()| load::serve(&files, &format!("{FAR}:{TARGET_PORT}")));
        for mut command in commands {
            let child = match &set_up {
                Ok(()) => command.spawn().context("starting a program on the node"),
                Err(error) => Err(anyhow::anyhow!("the node's namespace: {error:#}")),
            };
            if starts.send(child).is_err() {
                return;
            }
        }
    });
    let thread = is_ready.recv()?.context("the node's namespace")?;
    ip(&format!(
        "link add tunnel0 type veth peer name tunnel1 netns {thread}"
    ))?;
    plugged.send(())?;
    Ok((node, started))
}

fn ip(arguments: &str) -> Result<()> {
    let done = Command::new("ip").args(arguments.split(' ')).status()?;
    ensure!(done.success(), "ip {arguments} failed");
    Ok(())
}

fn tc(mut command: Command, arguments: &str) -> Result<()> {
    let done = command.arg("qdisc").args(arguments.split(' ')).status()?;
    ensure!(done.success(), "tc qdisc {arguments} failed");
    Ok(())
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
