//! What a person at the machine can break off.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_join_that_waits_is_ended_by_a_signal() {
    let mut joining = Command::new(env!("CARGO_BIN_EXE_stoker-node"))
        .args(["join", "-"])
        // Nothing comes.
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let process = Pid::from_raw(joining.id().try_into().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(joining.try_wait().unwrap(), None, "it waits for its token");
    kill(process, Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = joining.try_wait().unwrap() {
            break Some(ended);
        }
        if begun.elapsed() > Duration::from_secs(5) {
            joining.kill().unwrap();
            joining.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let ended = ended.expect("it ignores the signal");
    assert_eq!(ended.signal(), Some(Signal::SIGTERM as i32));
}
