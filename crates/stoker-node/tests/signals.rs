//! What a person at the machine can break off.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// More than a pipe holds: who has written it all knows that it is being read.
const MORE_THAN_A_PIPE: usize = 128 << 10;
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_join_that_waits_is_ended_by_a_signal() {
    let mut joining = Command::new(env!("CARGO_BIN_EXE_stoker-node"))
        .args(["join", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let process = Pid::from_raw(joining.id().try_into().unwrap());
    // A line without an end: it has begun to read its token, after all that it does first, and waits for the rest.
    let mut input = joining.stdin.take().unwrap();
    let (is_read, reads) = mpsc::channel();
    std::thread::spawn(move || {
        let written = input.write_all(&vec![b'x'; MORE_THAN_A_PIPE]);
        is_read.send((written, input))
    });
    let (written, _input) = reads.recv_timeout(SOON).expect("it reads its token");
    written.unwrap();
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
