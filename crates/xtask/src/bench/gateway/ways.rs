//! The three ways to the server, each with the same number of routes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stoker_lab::ports::free_port;
use tokio::net::TcpStream;

use super::super::machine::process_seconds;
use super::load::{Load, Target};

/// What is between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Direct,
    Gateway,
    Haproxy,
}

/// One of them, running; ends with its value.
pub(super) struct Way {
    process: Option<Child>,
    target: Target,
    _directory: tempfile::TempDir,
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Way {
    /// Starts it with `routes` routes, one of which leads to the servers of `load`.
    pub(super) async fn start(
        kind: Kind,
        gateway: &Path,
        load: &Load,
        routes: usize,
    ) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory")?;
        let port = free_port()?;
        let process = match kind {
            Kind::Direct => None,
            Kind::Gateway => Some(start_gateway(
                gateway,
                directory.path(),
                load,
                routes,
                port,
            )?),
            Kind::Haproxy => Some(start_haproxy(directory.path(), load, routes, port)?),
        };
        let target = match kind {
            Kind::Direct => load.servers(),
            Kind::Gateway | Kind::Haproxy => Target::one(SocketAddr::from(([127, 0, 0, 1], port))),
        };
        let way = Self {
            process,
            target,
            _directory: directory,
        };
        let begun = Instant::now();
        while TcpStream::connect(way.target.tls).await.is_err() {
            ensure!(
                begun.elapsed() < Duration::from_mins(1),
                "{kind:?} does not listen"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What it does after its start is over.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(way)
    }

    pub(super) fn target(&self) -> Target {
        self.target
    }

    /// CPU time that it has used, seconds.
    pub(super) fn cpu(&self) -> Result<f64> {
        let Some(process) = &self.process else {
            return Ok(0.0);
        };
        process_seconds(process.id())
    }

    /// Its resident memory, MiB.
    pub(super) fn resident(&self) -> Result<f64> {
        let Some(process) = &self.process else {
            return Ok(0.0);
        };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes: f64 = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .context("no VmRSS")?;
        Ok(kibibytes / 1024.0)
    }
}

/// Names and addresses of all routes: first those that are used.
fn routes(load: &Load, number: usize) -> impl Iterator<Item = (String, SocketAddr)> {
    let used = load.named().into_iter();
    let used = used.map(|(name, address)| (name.to_owned(), address));
    let unused = SocketAddr::from(([192, 0, 2, 1], 6443));
    let others = (0_u32..).map(move |at| (format!("{at:032x}.clusters.example.com"), unused));
    used.chain(others).take(number)
}

fn start_gateway(
    program: &Path,
    directory: &Path,
    load: &Load,
    number: usize,
    port: u16,
) -> Result<Child> {
    let mut text = "routes:\n".to_owned();
    for (name, address) in routes(load, number) {
        // Writing to a String never fails.
        let _ = writeln!(text, "- {{name: {name}, backends: [\"{address}\"]}}");
    }
    let file = directory.join("routes.yaml");
    std::fs::write(&file, text).context("writing the routes")?;
    let mut command = Command::new(program);
    command
        .arg(format!("--routes={}", file.display()))
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--health-bind-address=127.0.0.1:{}", free_port()?))
        .args([
            "--tenant-handshakes=1000000",
            "--tenant-burst=1000000",
            "--tenant-connections=1000000",
        ]);
    spawn(&mut command)
}

/// As `HAProxy`'s manual has TLS passed through: a map from names to backends.
fn start_haproxy(directory: &Path, load: &Load, number: usize, port: u16) -> Result<Child> {
    let map = directory.join("names.map");
    let mut config = format!(
        "global\n  maxconn 4500\ndefaults\n  mode tcp\n  timeout connect 3s\n  timeout client 4h\n  timeout server 4h\n\
         frontend all\n  bind 127.0.0.1:{port}\n  tcp-request inspect-delay 10s\n  \
         tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
         use_backend %[req.ssl_sni,lower,map({})]\n",
        map.display()
    );
    let mut names = String::new();
    for (at, (name, address)) in routes(load, number).enumerate() {
        let _ = writeln!(names, "{name} b{at}");
        let _ = writeln!(config, "backend b{at}\n  server one {address}");
    }
    let file = directory.join("haproxy.cfg");
    std::fs::write(&map, names).context("writing the map")?;
    std::fs::write(&file, config).context("writing the configuration")?;
    spawn(Command::new("haproxy").arg("-db").arg("-f").arg(&file))
}

fn spawn(command: &mut Command) -> Result<Child> {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet
        .spawn()
        .with_context(|| format!("starting {}", quiet.get_program().display()))
}
