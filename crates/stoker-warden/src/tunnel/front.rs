//! The side of the API server: one connection per stream, each begun by a CONNECT.

use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use stoker_tunnel::counted::Counted;
use stoker_tunnel::relay::relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Shared;
use super::agents::Refusal;
use super::target::Target;

/// How long an API server may take to say what it wants.
const QUESTION: Duration = Duration::from_secs(10);
/// Bytes of that.
const LARGEST_QUESTION: usize = 4096;
/// Characters of a reason that are passed on.
const LONGEST_REASON: usize = 300;

/// Answers one connection, and passes its bytes on. An API server that goes away is its own business.
pub(super) async fn answer(mut socket: UnixStream, shared: &Shared) {
    let metrics = &shared.metrics;
    let opened = match timeout(QUESTION, question(&mut socket)).await {
        Ok(Ok(target)) => shared.agents.open(&target).await,
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => return,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            metrics.refused(refusal.status);
            let _ = socket.write_all(refusal.head().as_bytes()).await;
            return;
        }
    };
    if socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_err() {
        return;
    }
    let _open = metrics.stream();
    let (read, write) = socket.split();
    let mut read = Counted(read, &metrics.to_nodes);
    let mut write = Counted(write, &metrics.from_nodes);
    let _ = relay(&mut read, &mut write, opened.send, opened.receive).await;
    drop(opened.place);
}

/// What is asked for. The API server says nothing more before it has an answer, so what comes after the
/// head is an error.
async fn question(socket: &mut UnixStream) -> Result<Target, Refusal> {
    let wrong = |reason: &str| Refusal {
        status: StatusCode::BAD_REQUEST,
        reason: reason.to_owned(),
    };
    let mut head = BytesMut::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        let read = socket.read_buf(&mut head).await;
        if !matches!(read, Ok(1..)) || head.len() > LARGEST_QUESTION {
            return Err(wrong("this is no CONNECT"));
        }
    }
    let line = head[..]
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("CONNECT "))
        .and_then(|line| line.strip_suffix(" HTTP/1.1"))
        .and_then(Target::parse)
        .ok_or_else(|| wrong("ask CONNECT host:port HTTP/1.1"))
}

impl Refusal {
    /// The reason stands where the API server shows it: in the status line.
    fn head(&self) -> String {
        let printable = |letter: &char| *letter == ' ' || letter.is_ascii_graphic();
        let reason: String = self
            .reason
            .chars()
            .filter(printable)
            .take(LONGEST_REASON)
            .collect();
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.status.as_u16()
        )
    }
}
