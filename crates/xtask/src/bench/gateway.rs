//! `gateway`: what the gateway adds to a connection, beside a direct one and beside `HAProxy` doing the same, in one run by
//! turns. Needs no lab.
//!
//! ```text
//!   load ──► direct, gateway or HAProxy ──► TLS server that answers each request with 1 KiB
//! ```

mod load;
mod ways;

use std::time::Duration;

use anyhow::{Context as _, Result};
use stoker_lab::command::{cargo, program, run};

use self::load::Load;
use self::ways::{Kind, Way};
use super::figures::{Spread, Table};

/// Rounds; in each every way takes its turn, each time another one first. Short ones: what else the machine does falls on
/// neighbours alike, and the ratio of two of one round is what is compared.
const ROUNDS: usize = 21;
/// Requests of a round, one after the other.
const REQUESTS: usize = 1500;
/// How long connections are opened in a round.
const OPENING: Duration = Duration::from_millis(600);
/// Clients that open them.
const CLIENTS: usize = 16;
/// Bytes of the stream of a round.
const STREAM: u64 = 256 << 20;
/// Silent connections of which memory is measured.
const SILENT: usize = 2000;
/// Routes with which everything is measured.
const ROUTES: usize = 10_000;
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Figures of one way; one entry per round.
#[derive(Default)]
struct Figures {
    p50: Vec<f64>,
    p99: Vec<f64>,
    handshakes: Vec<f64>,
    handshake_cpu: Vec<f64>,
    hellos: Vec<f64>,
    hello_cpu: Vec<f64>,
    throughput: Vec<f64>,
    stream_cpu: Vec<f64>,
    memory: f64,
    silent: f64,
}

/// Measures everything.
///
/// # Errors
/// When something cannot be built, started or reached.
pub(super) async fn measure() -> Result<Vec<Table>> {
    ensure_haproxy().await?;
    raise_file_limit().await?;
    let gateway = build_gateway().await?;
    let load = Load::start().await?;
    let mut ways = Vec::new();
    for kind in [Kind::Direct, Kind::Gateway, Kind::Haproxy] {
        let way = Way::start(kind, &gateway, &load, ROUTES).await?;
        ways.push((way, Figures::default()));
    }
    for (way, figures) in &mut ways {
        figures.memory = way.resident()?;
    }
    for number in 0..ROUNDS {
        let first = number % ways.len();
        for at in 0..ways.len() {
            let at = (first + at) % ways.len();
            let (way, figures) = &mut ways[at];
            round(&load, way, figures).await?;
        }
    }
    for (way, figures) in &mut ways {
        let before = way.resident()?;
        let held = load.hold(way.target(), SILENT).await?;
        let each = (way.resident()? - before) / f64::from(u32::try_from(SILENT)?);
        figures.silent = each * 1024.0;
        drop(held);
    }
    table(&ways).map(|table| vec![table])
}

async fn round(load: &Load, way: &Way, figures: &mut Figures) -> Result<()> {
    let target = way.target();
    let mut times = load.requests(target, REQUESTS).await?;
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied();
    figures.p50.extend(at(50));
    figures.p99.extend(at(99));
    let before = way.cpu()?;
    let done = load.handshakes(target, CLIENTS, OPENING).await?;
    figures.handshakes.push(done / OPENING.as_secs_f64());
    figures
        .handshake_cpu
        .push((way.cpu()? - before) * 1e6 / done);
    let before = way.cpu()?;
    let done = load.hellos(target, CLIENTS, OPENING).await?;
    figures.hellos.push(done / OPENING.as_secs_f64());
    figures.hello_cpu.push((way.cpu()? - before) * 1e6 / done);
    let before = way.cpu()?;
    let seconds = load.stream(target, STREAM).await?;
    let gibibytes = f64::from(u32::try_from(STREAM >> 20)?) / 1024.0;
    figures.throughput.push(gibibytes / seconds);
    figures.stream_cpu.push((way.cpu()? - before) / gibibytes);
    Ok(())
}

fn table(ways: &[(Way, Figures)]) -> Result<Table> {
    let title = format!(
        "Gateway with {ROUTES} routes, against HAProxy with as many backends; medians of {ROUNDS} rounds, and of their ratios"
    );
    let columns = ["", "direct", "gateway", "HAProxy", "gateway / HAProxy"];
    let mut table = Table::new(title, &columns);
    let spread =
        |name: &str, of: fn(&Figures) -> &Vec<f64>, digits, table: &mut Table| -> Result<()> {
            let median = |figures: &[f64]| {
                Ok::<_, anyhow::Error>(Spread::of(figures.iter().copied())?.median)
            };
            let found: Vec<f64> = ways
                .iter()
                .map(|(_, figures)| median(of(figures)))
                .collect::<Result<_>>()?;
            let ratios = match ways {
                [_, (_, gateway), (_, haproxy)] => {
                    let rounds = of(gateway).iter().zip(of(haproxy));
                    rounds.map(|(one, other)| one / other).collect()
                }
                _ => Vec::new(),
            };
            row(table, name, &found, digits, Some(median(&ratios)?));
            Ok(())
        };
    spread("request p50, µs", |f| &f.p50, 1, &mut table)?;
    spread("request p99, µs", |f| &f.p99, 1, &mut table)?;
    spread("TLS handshakes/s", |f| &f.handshakes, 0, &mut table)?;
    spread(
        "its CPU per TLS handshake, µs",
        |f| &f.handshake_cpu,
        1,
        &mut table,
    )?;
    spread(
        "connections/s (ClientHello and one byte back)",
        |f| &f.hellos,
        0,
        &mut table,
    )?;
    spread(
        "its CPU per such connection, µs",
        |f| &f.hello_cpu,
        1,
        &mut table,
    )?;
    spread("one stream, GiB/s", |f| &f.throughput, 2, &mut table)?;
    spread("its CPU per GiB, s", |f| &f.stream_cpu, 2, &mut table)?;
    let memory: Vec<f64> = ways.iter().map(|(_, figures)| figures.memory).collect();
    row(
        &mut table,
        "resident with the routes, MiB",
        &memory,
        1,
        None,
    );
    let silent: Vec<f64> = ways.iter().map(|(_, figures)| figures.silent).collect();
    row(
        &mut table,
        "resident per silent connection, KiB",
        &silent,
        1,
        None,
    );
    Ok(table)
}

/// `ratio` of rounds, where there were any.
fn row(table: &mut Table, name: &str, found: &[f64], digits: usize, ratio: Option<f64>) {
    let text = |figure: f64| format!("{figure:.digits$}");
    let ratio = ratio.or(match found {
        [_, gateway, haproxy] if *haproxy > 0.0 => Some(gateway / haproxy),
        _ => None,
    });
    let ratio = ratio
        .filter(|ratio| ratio.is_finite())
        .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    let mut cells = vec![name.to_owned()];
    cells.extend(found.iter().map(|figure| text(*figure)));
    cells.push(ratio);
    let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
    table.row(&cells);
}

/// A silent connection is three files of this process.
async fn raise_file_limit() -> Result<()> {
    let pid = std::process::id().to_string();
    run(&mut program("prlimit", ["--nofile=10000:", "--pid", &pid])).await?;
    Ok(())
}

async fn ensure_haproxy() -> Result<()> {
    if run(&mut program("haproxy", ["-v"])).await.is_ok() {
        return Ok(());
    }
    let arguments = ["install", "-qq", "-y", "--no-install-recommends", "haproxy"];
    run(program("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"))
        .await
        .context("installing the Debian package haproxy")?;
    Ok(())
}

/// The release binary, static, as its image has it; or the one that `STOKER_GATEWAY` names.
async fn build_gateway() -> Result<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("STOKER_GATEWAY") {
        return Ok(path.into());
    }
    let arguments = [
        "build",
        "--quiet",
        "--release",
        "--package",
        "stoker-gateway",
        "--target",
        TARGET,
    ];
    let mut build = cargo(arguments);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(&mut build.into()).await?;
    let directory = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| stoker_lab::paths::checkout().join("target"), Into::into);
    Ok(directory.join(TARGET).join("release/stoker-gateway"))
}
