//! The tunnel against a direct connection: release programs, in two network namespaces with a cable between.
//!
//! ```text
//!  management namespace (this thread)         node namespace (a thread of its own)
//!    load ── direct ─────────────── veth ──────────► target (TLS)
//!    load ── socket ──► warden ════ veth ════ stoker-node ──► target
//! ```

mod ground;
mod load;

use std::time::Duration;

use anyhow::Result;

use super::figures::{Table, count};
use ground::Ground;
use load::{Spell, Way};

/// Requests per way and round.
const REQUESTS: usize = 4000;
/// Connections opened per way and round.
const OPENINGS: usize = 400;
/// Rounds, in which the ways take turns.
const ROUNDS: usize = 5;
/// Bytes of the large stream, per round.
const LARGE: usize = 512 << 20;
/// Bytes of it on a cable of 1 Gbit/s.
const LARGE_ON_CABLE: usize = 128 << 20;
/// Bytes of it when the target writes small pieces, as a kubelet does.
const LARGE_IN_PIECES: usize = 128 << 20;
/// Bytes of such a piece.
const PIECE: usize = 4 << 10;
/// Streams held open.
const STREAMS: usize = 1000;
/// Agents beside the first.
const AGENTS: usize = 20;

/// Measures everything.
///
/// # Errors
/// Without root, or when a program does not start.
pub(super) fn measure() -> Result<Vec<Table>> {
    let mut ground = Ground::prepare()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(all(&mut ground))
}

async fn all(ground: &mut Ground) -> Result<Vec<Table>> {
    let ways = ground.ways();
    load::until_open(&ways[1]).await?;
    let idle = ground.memory()?;
    let mut tables = vec![latency(&ways).await?, throughput(ground, &ways).await?];
    tables.push(memory(ground, &ways[1], idle).await?);
    Ok(tables)
}

async fn latency(ways: &[Way; 2]) -> Result<Table> {
    let mut requests = [Spell::default(), Spell::default()];
    let mut openings = [Spell::default(), Spell::default()];
    for _ in 0..ROUNDS {
        for (index, way) in ways.iter().enumerate() {
            requests[index].add(load::requests(way, REQUESTS).await?);
            openings[index].add(load::openings(way, OPENINGS).await?);
        }
    }
    let mut table = Table::new(
        "tunnel, latency, µs",
        &[
            "what",
            "direct p50",
            "tunnel p50",
            "added",
            "direct p99",
            "tunnel p99",
            "added p99",
        ],
    );
    for (what, [direct, tunnel]) in [
        (
            "request of 128 bytes, answer of 256, on an open stream",
            requests,
        ),
        ("the same, and the stream opened for it", openings),
    ] {
        let (d50, t50) = (direct.percentile(50), tunnel.percentile(50));
        let (d99, t99) = (direct.percentile(99), tunnel.percentile(99));
        table.row(&[
            what,
            &micros(d50),
            &micros(t50),
            &micros(t50.saturating_sub(d50)),
            &micros(d99),
            &micros(t99),
            &micros(t99.saturating_sub(d99)),
        ]);
    }
    Ok(table)
}

async fn throughput(ground: &Ground, ways: &[Way; 2]) -> Result<Table> {
    let mut table = Table::new(
        "tunnel, one stream of TLS",
        &[
            "path",
            "direct, MB/s",
            "tunnel, MB/s",
            "ratio",
            "warden, CPU s/GB",
            "stoker-node, CPU s/GB",
        ],
    );
    for (path, gigabit, bytes, piece) in [
        (
            "no limit but two cores for everything",
            false,
            LARGE,
            load::LARGEST_PIECE,
        ),
        (
            "the same, written in pieces of 4 KiB",
            false,
            LARGE_IN_PIECES,
            PIECE,
        ),
        (
            "cable of 1 Gbit/s",
            true,
            LARGE_ON_CABLE,
            load::LARGEST_PIECE,
        ),
    ] {
        if gigabit {
            ground.cable().limit_to_a_gigabit()?;
        }
        let mut took = [Duration::ZERO; 2];
        let before = ground.cpu()?;
        for _ in 0..ROUNDS {
            for (index, way) in ways.iter().enumerate() {
                took[index] += load::download(way, bytes, piece).await?;
            }
        }
        let after = ground.cpu()?;
        let bytes = count(bytes * ROUNDS);
        let pace = took.map(|took| bytes / took.as_secs_f64() / 1e6);
        let cpu = |end: usize| format!("{:.2}", (after[end] - before[end]) * 1e9 / bytes);
        table.row(&[
            path,
            &format!("{:.0}", pace[0]),
            &format!("{:.0}", pace[1]),
            &format!("{:.2}", pace[1] / pace[0]),
            &cpu(0),
            &cpu(1),
        ]);
    }
    ground.cable().unlimited()?;
    Ok(table)
}

async fn memory(ground: &mut Ground, way: &Way, idle: [u64; 2]) -> Result<Table> {
    let mut table = Table::new(
        "tunnel, resident memory (PSS), kB",
        &["when", "warden", "stoker-node"],
    );
    let row = |table: &mut Table, when: &str, [warden, agent]: [u64; 2]| {
        table.row(&[when, &warden.to_string(), &agent.to_string()]);
    };
    row(&mut table, "one agent, fresh", idle);
    let before = ground.memory()?;
    row(&mut table, "after the loads above", before);
    let streams = load::hold(way, STREAMS).await?;
    row(
        &mut table,
        "1,000 streams open and used once",
        ground.memory()?,
    );
    drop(streams);
    tokio::time::sleep(Duration::from_secs(1)).await;
    row(&mut table, "those closed", ground.memory()?);
    ground.add_agents(AGENTS)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    row(&mut table, "20 more agents", ground.memory()?);
    Ok(table)
}

fn micros(duration: Duration) -> String {
    format!("{:.0}", duration.as_secs_f64() * 1e6)
}
