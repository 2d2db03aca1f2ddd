//! Units of systemd on a worker that has it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stoker_lab::host::Host;

use crate::world::eventually;

/// That of `stoker-node run`.
pub(crate) const AGENT: &str = "stoker-node.service";
const SOON: Duration = Duration::from_mins(1);

/// Kills a unit's process, and waits for the next one.
pub(crate) async fn kill(worker: &Host, unit: &str) -> Result<()> {
    let before = process(worker, unit).await?;
    let begun = Instant::now();
    worker.run(["kill", "-KILL", &before]).await?;
    next(worker, unit, &before).await?;
    println!("{unit} is back {:.1?} after a kill", begun.elapsed());
    Ok(())
}

/// The first process of a unit, once it is another one.
pub(crate) async fn next(worker: &Host, unit: &str, before: &str) -> Result<String> {
    eventually(SOON, "another process comes", async || {
        let now = process(worker, unit).await?;
        ensure!(now != before, "{unit} is {now} of before");
        Ok(now)
    })
    .await
}

/// The first process of a unit that is active.
pub(crate) async fn process(worker: &Host, unit: &str) -> Result<String> {
    let process = property(worker, unit, "MainPID").await?;
    let state = property(worker, unit, "ActiveState").await?;
    ensure!(process != "0" && state == "active", "{unit} is {state}");
    Ok(process)
}

pub(crate) async fn property(worker: &Host, unit: &str, name: &str) -> Result<String> {
    let value = worker
        .run(["systemctl", "show", "--value", "-p", name, unit])
        .await?;
    Ok(value.trim().to_owned())
}
