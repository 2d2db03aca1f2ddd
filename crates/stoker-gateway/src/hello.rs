//! The first message of a TLS client, as far as routing needs it: whom it wants to reach.
//!
//! Read by hand and not by a TLS stack: what a client offers is between it and its API server, and a stack would refuse
//! offers that it does not know itself. Nothing is taken from the bytes but lengths, each checked against what is there.

mod message;

use thiserror::Error;

/// Bytes of records that a `ClientHello` may take. Real ones have 250 to 2,000, with post-quantum key shares and
/// encrypted inner hellos.
pub const LARGEST_HELLO: usize = 16 << 10;

/// What the tunnel speaks over TLS (ALPN, RFC 7301), in whatever version.
pub const TUNNEL: &[u8] = b"stoker-tunnel/";

/// Content type of a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// Content type of an alert record.
const ALERT: u8 = 21;
/// Header of a record: content type, version, length.
const RECORD_HEADER: usize = 5;
/// Header of a handshake message: type and length.
const MESSAGE_HEADER: usize = 4;
/// Bytes of a record (RFC 8446, 5.1).
const LARGEST_RECORD: usize = 1 << 14;

/// What a client said first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The name in `server_name`, in lower case; with an encrypted inner hello the outer, public one. Absent where the
    /// client names nobody, as those that dial an address.
    pub server_name: Option<Box<str>>,
    /// Whether it offers [`TUNNEL`]: it is the tunnel's far end on a node and no client of the API server.
    pub tunnel: bool,
}

/// Why bytes are no `ClientHello`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    /// Not even the first bytes are TLS.
    #[error("not TLS")]
    NotTls,
    /// TLS that breaks its own rules.
    #[error("a broken ClientHello")]
    Broken,
    /// More than [`LARGEST_HELLO`].
    #[error("a ClientHello of more than {LARGEST_HELLO} bytes")]
    TooLarge,
}

/// Gathers a `ClientHello` from whatever pieces the network delivers. Each byte is looked at once.
#[derive(Debug, Default)]
pub struct HelloReader {
    /// Everything received, for the API server.
    received: Vec<u8>,
    /// Start of the first record that is not complete yet.
    next_record: usize,
    /// The handshake message, from the records before.
    message: Vec<u8>,
}

impl HelloReader {
    /// Takes what was received next; the hello once it is complete.
    ///
    /// # Errors
    /// As soon as no bytes to come could make it a `ClientHello`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, Invalid> {
        self.received.extend_from_slice(bytes);
        while let Some(payload) = self.record()? {
            self.message.extend_from_slice(&self.received[payload]);
            if let Some(message) = whole_message(&self.message)? {
                return message::parse(message).map(Some);
            }
        }
        Ok(None)
    }

    /// How many more bytes to receive at most.
    #[must_use]
    pub fn room(&self) -> usize {
        LARGEST_HELLO.saturating_sub(self.received.len())
    }

    /// All that was received.
    #[must_use]
    pub fn into_received(self) -> Vec<u8> {
        self.received
    }

    /// Where the payload of the next record is, if it is complete.
    fn record(&mut self) -> Result<Option<std::ops::Range<usize>>, Invalid> {
        let rest = &self.received[self.next_record..];
        let first = self.next_record == 0;
        match rest {
            [HANDSHAKE] | [] => return self.incomplete(),
            [HANDSHAKE, 3, ..] => {}
            _ if first => return Err(Invalid::NotTls),
            _ => return Err(Invalid::Broken),
        }
        let Some(length) = rest.get(3..RECORD_HEADER) else {
            return self.incomplete();
        };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length == 0 || length > LARGEST_RECORD {
            return Err(Invalid::Broken);
        }
        let end = RECORD_HEADER + length;
        // Told before the rest of it arrives.
        if first && rest.len() > RECORD_HEADER && rest[RECORD_HEADER] != message::CLIENT_HELLO {
            return Err(Invalid::Broken);
        }
        if rest.len() < end {
            return self.incomplete();
        }
        let payload = self.next_record + RECORD_HEADER..self.next_record + end;
        self.next_record = payload.end;
        Ok(Some(payload))
    }

    fn incomplete<T>(&self) -> Result<Option<T>, Invalid> {
        if self.room() == 0 {
            return Err(Invalid::TooLarge);
        }
        Ok(None)
    }
}

/// The body of the handshake message, once all of it is there.
fn whole_message(bytes: &[u8]) -> Result<Option<&[u8]>, Invalid> {
    let Some((header, body)) = bytes.split_first_chunk::<MESSAGE_HEADER>() else {
        return Ok(None);
    };
    let [kind, length @ ..] = *header;
    if kind != message::CLIENT_HELLO {
        return Err(Invalid::Broken);
    }
    let length =
        usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
    if length > LARGEST_HELLO {
        return Err(Invalid::TooLarge);
    }
    Ok(body.get(..length))
}

/// What a client that is not let through is told, so that people read a reason and not "connection reset" (RFC 8446, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// What it sent is no `ClientHello`.
    DecodeError,
    /// It is not its fault.
    InternalError,
    /// It names nobody.
    MissingExtension,
    /// It names somebody unknown.
    UnrecognizedName,
}

impl Alert {
    /// The fatal alert as a record.
    #[must_use]
    pub fn record(self) -> [u8; 7] {
        const FATAL: u8 = 2;
        let description = match self {
            Self::DecodeError => 50,
            Self::InternalError => 80,
            Self::MissingExtension => 109,
            Self::UnrecognizedName => 112,
        };
        [ALERT, 3, 3, 0, 2, FATAL, description]
    }
}

#[cfg(test)]
mod tests;
