//! CPU time of the whole machine, and of one process.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Clock ticks per second in `/proc/stat`: `USER_HZ`.
const TICKS_PER_SECOND: f64 = 100.0;
/// What counts as quiet: so much of one CPU is busy.
const QUIET: f64 = 0.5;
const LOOK: Duration = Duration::from_secs(1);

/// CPU time spent by everything on the machine since it started, seconds.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub(super) fn busy_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    parse(&stat).context("/proc/stat has no line of all CPUs")
}

/// CPU time that a process has used, seconds.
///
/// # Errors
/// When it is gone.
pub(super) fn process_seconds(process: u32) -> Result<f64> {
    // Ticks of /proc/PID/stat would be a tenth of what a round takes.
    let threads = std::fs::read_dir(format!("/proc/{process}/task"))?;
    let mut nanoseconds = 0.0;
    for thread in threads {
        let times = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = times.split_whitespace().next();
        nanoseconds += on_cpu
            .and_then(|text| text.parse::<f64>().ok())
            .context("no times in /proc")?;
    }
    Ok(nanoseconds / 1e9)
}

/// user, nice, system, (idle, iowait,) irq, softirq, steal; guest time is part of user time.
fn parse(stat: &str) -> Option<f64> {
    let fields: Vec<f64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let busy: f64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|&index| fields.get(index))
        .sum();
    (fields.len() > 7).then_some(busy / TICKS_PER_SECOND)
}

/// Waits until the machine is nearly idle, at most for `limit`; returns how many CPUs were busy in the last second.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub(super) async fn quiet(limit: Duration) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let before = busy_seconds()?;
        tokio::time::sleep(LOOK).await;
        let busy = (busy_seconds()? - before) / LOOK.as_secs_f64();
        if busy < QUIET || begun.elapsed() > limit {
            return Ok(busy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_waiting_for_disks_are_not_work() {
        let stat = "cpu  100 10 200 9999 8888 20 30 40 7 7\ncpu0 1 1 1 1\n";
        assert_eq!(parse(stat), Some(4.0));
        assert_eq!(parse("cpu 1 2"), None);
    }
}
