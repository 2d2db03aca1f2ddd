//! Benchmarks: commands that print figures and assert nothing about time.
//!
//! Each one brings up a lab of its own, named `bench`, with Stoker on it, and compares Stoker with a hand-written
//! Deployment of the same three components **in the same run**: only such ratios mean something on a shared machine.
//!
//! ```text
//! ground      the lab, and what every benchmark starts from
//! sightings   when things were first seen on the management cluster (watches)
//! readyz      when an API server first answered (one poller for both sides)
//! operator    what the operator says about itself (its metrics)
//! machine     CPU time of the whole machine
//! birth, ten, fleet, idle, heal, wake    the benchmarks
//! gateway     another, without a lab: the gateway beside HAProxy
//! tunnel      the tunnel against a direct connection, between two network namespaces; without a lab
//! figures     medians and tables
//! ```

mod birth;
mod figures;
mod fleet;
mod gateway;
mod ground;
mod heal;
mod idle;
mod machine;
mod operator;
mod readyz;
mod sightings;
mod ten;
mod tenant;
mod tunnel;
mod wake;

use anyhow::Result;
use clap::{Args, ValueEnum};

use figures::Table;
use ground::Ground;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// One tenant's birth, alternating with a hand-written one.
    Birth,
    /// Ten at once.
    Ten,
    /// A fleet that grows by a few at once: memory and CPU of the operator per further tenant.
    Fleet,
    /// What the operator does while nothing happens.
    Idle,
    /// A Deployment deleted inside a tenant comes back.
    Heal,
    /// A connection wakes a tenant, beside a Deployment scaled by hand; and tenants that sleep.
    Wake,
    /// What the gateway adds to a connection, beside `HAProxy`. Needs no lab.
    Gateway,
    /// The tunnel: latency, throughput, memory.
    Tunnel,
    /// All of them that need a lab.
    All,
}

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What is measured.
    benchmark: Benchmark,
    /// Rounds of `birth`, `heal` and `wake`.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Tenants of `ten`.
    #[arg(long, default_value_t = 10)]
    tenants: usize,
    /// Tenants of `fleet`.
    #[arg(long, default_value_t = 30)]
    fleet_tenants: usize,
    /// Tenants of `idle`.
    #[arg(long, default_value_t = 3)]
    idle_tenants: usize,
    /// Length of the idle time of `idle`, seconds.
    #[arg(long, default_value_t = 300)]
    idle_seconds: u64,
    /// Tenants of `wake` that sleep at the same time.
    #[arg(long, default_value_t = 50)]
    sleepers: usize,
    /// How long they are looked at, seconds.
    #[arg(long, default_value_t = 120)]
    sleep_seconds: u64,
    /// Print tables as markdown.
    #[arg(long)]
    markdown: bool,
    /// Leave the lab up.
    #[arg(long)]
    keep: bool,
}

/// Measures and prints, and removes the lab unless it is to be kept.
///
/// # Errors
/// When the lab cannot be brought up or something never becomes ready.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if args.benchmark == Benchmark::Tunnel {
        return tunnel::measure()?
            .iter()
            .try_for_each(|table| table.print(args.markdown));
    }
    measured(args)
}

#[tokio::main]
async fn measured(args: &BenchArgs) -> Result<()> {
    if args.benchmark == Benchmark::Gateway {
        let tables = gateway::measure().await?;
        return tables
            .iter()
            .try_for_each(|table| table.print(args.markdown));
    }
    let ground = Ground::prepare().await?;
    let measured = Box::pin(measure(&ground, args)).await;
    if args.keep {
        ground.lab.steps().note("the lab `bench` is kept");
    } else {
        ground.lab.down().await?;
    }
    measured
}

async fn measure(ground: &Ground, args: &BenchArgs) -> Result<()> {
    let wanted = |benchmark| args.benchmark == benchmark || args.benchmark == Benchmark::All;
    let print = |tables: Vec<Table>| {
        tables
            .iter()
            .try_for_each(|table| table.print(args.markdown))
    };
    if wanted(Benchmark::Birth) {
        print(birth::measure(ground, args.rounds).await?)?;
    }
    if wanted(Benchmark::Heal) {
        print(heal::measure(ground, args.rounds).await?)?;
    }
    if wanted(Benchmark::Ten) {
        print(ten::measure(ground, args.tenants).await?)?;
    }
    if wanted(Benchmark::Fleet) {
        print(fleet::measure(ground, args.fleet_tenants).await?)?;
    }
    if wanted(Benchmark::Wake) {
        let (sleepers, seconds) = (args.sleepers, args.sleep_seconds);
        print(Box::pin(wake::measure(ground, args.rounds, sleepers, seconds)).await?)?;
    }
    if wanted(Benchmark::Idle) {
        print(idle::measure(ground, args.idle_tenants, args.idle_seconds).await?)?;
    }
    Ok(())
}
