//! What this process has used.

use nix::time::{ClockId, clock_gettime};

/// CPU time and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// User and system time, seconds.
    pub(super) cpu_seconds: f64,
    pub(super) memory: Memory,
}

/// Resident memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Memory {
    /// All of it.
    pub(super) resident: i64,
    /// Without pages of the program's file, which grow with the code that ran, not with tenants.
    pub(super) anonymous: i64,
}

/// `None` where there is no `/proc`.
pub(super) fn usage() -> Option<Usage> {
    let spent = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Usage {
        cpu_seconds: std::time::Duration::from(spent).as_secs_f64(),
        memory: parse(&status)?,
    })
}

fn parse(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let field = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: i64 = field.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory {
        resident: bytes("VmRSS:")?,
        anonymous: bytes("RssAnon:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_and_without_files() {
        let memory = parse("Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t    512 kB\n").unwrap();
        assert_eq!((memory.resident, memory.anonymous), (2 << 20, 512 << 10));
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let before = usage().unwrap();
        assert!(before.memory.anonymous > 0 && before.memory.resident > before.memory.anonymous);
        while usage().unwrap().cpu_seconds <= before.cpu_seconds {}
    }
}
