//! Why a connection is not let through.

use prometheus_client::encoding::EncodeLabelValue;
use thiserror::Error;

use crate::hello::{Alert, Invalid};

/// Why a connection is not let through.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Error, Hash, PartialEq, Eq)]
pub enum Refusal {
    /// It went away, or was silent from the start, as a port scanner or a load balancer's health check.
    #[error("it ended before it said anything")]
    Silent,
    /// Its first message took too long.
    #[error("its ClientHello took too long")]
    Slow,
    /// It must begin with a PROXY protocol header, and does not.
    #[error("no PROXY protocol header, and it comes from where one is expected")]
    NoProxyHeader,
    /// It begins with a PROXY protocol header that names nobody, and need not begin with one.
    #[error("a PROXY protocol header that names nobody, and it comes from where none is expected")]
    ProxyHeader,
    /// It does not speak TLS.
    #[error("not TLS")]
    NotTls,
    /// Its first message is broken or too large.
    #[error("its ClientHello is broken or too large")]
    BrokenHello,
    /// It names nobody.
    #[error("no server name in its ClientHello")]
    NoName,
    /// It names somebody who is not here.
    #[error("nobody has the name that it asks for")]
    UnknownName,
    /// The tenant has all the connections that it may have.
    #[error("the tenant has as many connections as it may")]
    TenantConnections,
    /// The tenant's handshakes come too fast.
    #[error("the tenant's connections come too fast")]
    TenantRate,
    /// The client left while it was held or the tenant was dialed.
    #[error("the client left before it was led to anybody")]
    Left,
    /// The tenant is known, and nothing of it is ready.
    #[error("nothing of the tenant is ready")]
    NotReady,
    /// The tenant sleeps or wakes. The client tries again.
    #[error("the tenant is not awake yet")]
    Waking,
    /// None of the tenant's addresses could be reached.
    #[error("no address of the tenant could be reached")]
    Unreachable,
    /// The gateway has no room.
    #[error("the gateway has no room for more connections")]
    Full,
}

impl Refusal {
    /// What the client is told; nothing where it would not understand.
    #[must_use]
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::Silent
            | Self::NoProxyHeader
            | Self::ProxyHeader
            | Self::NotTls
            | Self::Left
            | Self::Waking
            | Self::Full => None,
            Self::Slow | Self::BrokenHello => Some(Alert::DecodeError),
            Self::NoName => Some(Alert::MissingExtension),
            Self::UnknownName => Some(Alert::UnrecognizedName),
            Self::TenantConnections | Self::TenantRate | Self::NotReady | Self::Unreachable => {
                Some(Alert::InternalError)
            }
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::NotTls => Self::NotTls,
            Invalid::Broken | Invalid::TooLarge => Self::BrokenHello,
        }
    }
}
