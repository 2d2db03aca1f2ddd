//! The protocol's names and sizes.

use std::time::Duration;

/// TLS application protocol: what is spoken, and by which version.
pub const ALPN: &[u8] = b"stoker-tunnel/1";

/// What the near end asks first: for the agent's certificate, and whether it wants this connection.
pub const HELLO: &str = "https://tunnel/hello";
/// Header of the hello: the near end's id, the same as long as its process lives.
pub const SERVER_ID: &str = "stoker-server-id";
/// Header of the hello: how many near ends there are, each with an id of its own.
pub const SERVER_COUNT: &str = "stoker-server-count";
/// Header of the hello: whether the near end is about to end, so that another is to be looked for.
pub const SERVER_LEAVING: &str = "stoker-server-leaving";
/// Header of a refusal: why, in a line.
pub const REASON: &str = "stoker-reason";

/// Largest answer to a hello, bytes: a certificate.
pub const LARGEST_HELLO: usize = 16 << 10;
/// Streams at a time on one connection.
pub const STREAMS: u32 = 4096;

/// Bytes on their way in a stream that nobody has read, at first.
const STREAM_WINDOW: u32 = 512 << 10;
/// The same at most, however long the path.
const LARGEST_STREAM_WINDOW: u32 = 4 << 20;
/// Bytes per second that a stream shall reach on a long path.
const PACE: u64 = 100_000_000;
/// Bytes on their way in all streams of a connection: what an agent can cost at most.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Bytes of a stream that wait for the connection's socket.
const SEND_BUFFER: usize = 256 << 10;
/// Bytes of a frame: with its head of 9 bytes four full records of TLS, and not a fifth for the rest, which go to the socket by one
/// call. More would let one stream hold up the others for longer.
pub(crate) const FRAME: u32 = (64 << 10) - 9;
/// Bytes of the headers of a request: a name, a port.
const HEADERS: u32 = 16 << 10;
/// Streams that may be cancelled before the other end has seen them, at a time.
const CANCELLED: usize = 1024;
/// How long frames may still come for a stream that was reset.
const RESET_MEMORY: Duration = Duration::from_secs(5);

/// How the near end, which opens streams, speaks.
#[must_use]
pub fn near_end() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_concurrent_reset_streams(CANCELLED)
        .reset_stream_duration(RESET_MEMORY);
    builder
}

/// How the far end, which is asked for streams, speaks.
#[must_use]
pub fn far_end() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_concurrent_reset_streams(CANCELLED)
        .max_pending_accept_reset_streams(CANCELLED)
        .reset_stream_duration(RESET_MEMORY);
    builder
}

/// The window that a path of this round trip needs, bytes.
#[must_use]
pub fn window(round_trip: Duration) -> u32 {
    let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
    let needed = micros.saturating_mul(PACE) / 1_000_000;
    let needed = u32::try_from(needed).unwrap_or(LARGEST_STREAM_WINDOW);
    // In powers of two, so that it does not change with every ping.
    needed
        .clamp(STREAM_WINDOW, LARGEST_STREAM_WINDOW)
        .next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_with_the_path_within_bounds() {
        let after = |millis| window(Duration::from_millis(millis));
        assert_eq!(after(0), 512 << 10);
        assert_eq!(after(2), 512 << 10);
        assert_eq!(after(10), 1 << 20);
        assert_eq!(after(40), 4 << 20);
        assert_eq!(after(5_000), 4 << 20);
    }
}
