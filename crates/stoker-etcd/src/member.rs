//! One connection to one endpoint of the pool.

use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tonic::transport::{Channel, Endpoint};

use crate::answer::Answer;
use crate::error::{Error, connection_error, deepest};
use crate::handshake::Handshake;
use crate::pool::PoolConfig;

/// The longest any single call may take, connecting included.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// etcd answers pings that come more often than every 5 s with a disconnect.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint and its one lazy connection, over which every call to it goes.
pub(crate) struct Member {
    pub(crate) endpoint: String,
    channel: Channel,
    client: Client,
    handshake: Handshake,
}

impl Member {
    pub(crate) async fn new(endpoint: &str, config: &PoolConfig) -> Result<Self, Error> {
        let invalid = || Error::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
        };
        let (host, port) = endpoint.rsplit_once(':').ok_or_else(invalid)?;
        if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        let handshake = Handshake::new(config).map_err(Error::InvalidCredentials)?;
        let identity = Identity::from_pem(&config.client_certificate, config.client_key.as_bytes());
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&config.certificate_authority))
            .identity(identity);
        let channel = Endpoint::from_shared(format!("https://{endpoint}"))
            .map_err(|_| invalid())?
            .tls_config(tls)
            .map_err(|source| Error::InvalidCredentials(Box::new(source)))?
            .connect_timeout(CALL_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .tcp_keepalive(Some(PING_INTERVAL))
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .connect_lazy();
        let options = ConnectOptions::new().with_require_leader(true);
        let raw = etcd_client::Channel::Tonic(channel.clone());
        let client = Client::from_channel(raw, Some(options))
            .await
            .map_err(|source| Error::Refused {
                action: "connect",
                source: Box::new(source),
            })?;
        Ok(Self {
            endpoint: endpoint.to_owned(),
            channel,
            client,
            handshake,
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Like [`Self::explain`], and asks the member once more where the connection did not say why
    /// it failed.
    pub(crate) async fn diagnose(&self, action: &'static str, error: etcd_client::Error) -> Error {
        let explained = self.explain(action, error);
        if let Error::Unreachable { .. } = &explained
            && let Some(failure) = self.handshake.failure(&self.endpoint).await
        {
            return connection_error(&self.endpoint, &failure).unwrap_or(explained);
        }
        explained
    }

    /// Turns what a call to this member returned into an error that says what to do.
    pub(crate) fn explain(&self, action: &'static str, error: etcd_client::Error) -> Error {
        if let etcd_client::Error::GRpcStatus(status) = &error {
            match Answer::of(status) {
                Answer::NoConnection => {
                    let endpoint = self.endpoint.clone();
                    return connection_error(&endpoint, status).unwrap_or_else(|| {
                        Error::Unreachable {
                            endpoint,
                            reason: deepest(status),
                        }
                    });
                }
                Answer::NoLeader => {
                    return Error::NoLeader {
                        endpoint: self.endpoint.clone(),
                    };
                }
                Answer::Denied => return Error::NotRoot,
                Answer::OutOfSpace => return Error::OutOfSpace,
                _ => {}
            }
        }
        Error::Refused {
            action,
            source: Box::new(error),
        }
    }
}
