//! For tests of what passes bytes on: a way that holds as much as it can.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Has `speaker`, an end of a connection within 127.0.0.1, say as much as its way to `hearer`, who hears nothing yet, can hold, all of it
/// beyond the speaker's own socket; how many bytes, and those that were heard to make room.
///
/// # Panics
/// The way breaks.
pub async fn to_the_brim(
    speaker: &TcpStream,
    hearer: &mut (impl AsyncRead + Unpin),
) -> (usize, usize) {
    let (mut said, mut heard, mut room) = (0, 0, vec![0; 16 << 10]);
    let pause = Duration::from_millis(100);
    loop {
        while timeout(pause, speaker.writable()).await.is_ok() {
            said += speaker.try_write(&[7; 1 << 10]).unwrap_or(0);
        }
        while queued(speaker).0 > 0 {
            heard += hearer.read(&mut room).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        if queued(speaker).1 > 0 {
            return (said, heard);
        }
    }
}

/// Bytes that the kernel holds of what this end of a connection has said: on its own side, and unread on the other
/// (`proc_net_tcp(5)`).
fn queued(stream: &TcpStream) -> (usize, usize) {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let [own, other] = [stream.local_addr(), stream.peer_addr()]
        .map(|address| format!("0100007F:{:04X}", address.unwrap().port()));
    let found = |from: &str, to: &str| {
        let lines = sockets.lines().map(|line| line.split_whitespace());
        let mut lines = lines.map(Iterator::collect::<Vec<_>>);
        let line = lines.find(|line| line[1] == from && line[2] == to).unwrap();
        let (sent, read) = line[4].split_once(':').unwrap();
        [sent, read].map(|hex| usize::from_str_radix(hex, 16).unwrap())
    };
    (found(&own, &other)[0], found(&other, &own)[1])
}
