//! Command line of the gateway. Every flag has an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use ipnet::IpNet;
use stoker_api::BaseDomain;
use stoker_sockets::stream::{HALF_CLOSED, Silence};

use crate::gate::Settings;
use crate::limits::Limits;

/// Leads TLS connections to tenants by the name that they ask for, untouched.
#[derive(Parser, Debug, Clone)]
#[command(name = "stoker-gateway", version, group(ArgGroup::new("source").required(true)))]
pub struct Args {
    /// Addresses to take connections at, comma-separated. `[::]` takes IPv4 too.
    #[arg(
        long,
        env = "STOKER_LISTEN",
        value_delimiter = ',',
        default_value = "[::]:6443"
    )]
    pub listen: Vec<SocketAddr>,

    /// The operator's base domain: routes are the tenants of the management cluster, `<storage id>.<base domain>`.
    #[arg(long, env = "STOKER_BASE_DOMAIN", group = "source")]
    pub base_domain: Option<BaseDomain>,

    /// File of routes instead, read again when it changes.
    #[arg(long, env = "STOKER_ROUTES", group = "source")]
    pub routes: Option<PathBuf>,

    /// Networks of load balancers, comma-separated, whose connections begin with a PROXY protocol header (version 1
    /// or 2); without one they are refused. A header from elsewhere is refused too.
    #[arg(long, env = "STOKER_PROXY_PROTOCOL_FROM", value_delimiter = ',')]
    pub proxy_protocol_from: Vec<IpNet>,

    /// Connections at the same time, of all tenants together. Left out, and at most, what the limit of open files allows:
    /// two each.
    #[arg(long, env = "STOKER_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,

    /// Connections that one tenant may have at the same time; at most a quarter of those of all together.
    #[arg(long, env = "STOKER_TENANT_CONNECTIONS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub tenant_connections: u32,

    /// Connections per second that are led to one tenant; those above wait up to five seconds, then are refused.
    #[arg(long, env = "STOKER_TENANT_HANDSHAKES", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tenant_handshakes: u32,

    /// Connections that are led to one tenant at once after a pause.
    #[arg(long, env = "STOKER_TENANT_BURST", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tenant_burst: u32,

    /// Seconds for which a connection to a tenant is held while nothing of the tenant is ready.
    #[arg(long, env = "STOKER_HOLD_SECONDS", default_value_t = 10)]
    pub hold_seconds: u32,

    /// The same to a tenant that sleeps or wakes. Then the connection is reset, upon which clients that read try again:
    /// those written in Go give up a handshake after ten seconds, and do not.
    #[arg(long, env = "STOKER_WAKE_HOLD_SECONDS", default_value_t = 8)]
    pub wake_hold_seconds: u32,

    /// Seconds after which a connection is cut over which nothing passes; 0 is never.
    #[arg(long, env = "STOKER_IDLE_SECONDS", default_value_t = 4 * 60 * 60)]
    pub idle_seconds: u32,

    /// Threads that serve. Left out, as many as there are processors for this process.
    #[arg(long, env = "STOKER_THREADS")]
    pub threads: Option<u16>,

    /// Seconds from SIGTERM, when /readyz fails, until no more connections are taken: as long as load balancers need to
    /// learn of it.
    #[arg(long, env = "STOKER_DRAIN_DELAY_SECONDS", default_value_t = 10)]
    pub drain_delay_seconds: u32,

    /// Seconds from then on that open connections live on at most.
    #[arg(long, env = "STOKER_DRAIN_SECONDS", default_value_t = 600)]
    pub drain_seconds: u32,

    /// Address that serves /livez, /readyz and Prometheus metrics at /metrics.
    #[arg(long, env = "STOKER_HEALTH_BIND_ADDRESS", default_value = "[::]:8081")]
    pub health_bind_address: SocketAddr,

    /// Tenants that metrics show each for itself, those first that first have a connection.
    #[arg(long, env = "STOKER_TENANT_METRICS", default_value_t = 1000)]
    pub tenant_metrics: u16,

    /// Log as JSON lines instead of text.
    #[arg(long, env = "STOKER_LOG_JSON", default_value_t = false)]
    pub log_json: bool,
}

impl Args {
    /// How connections are treated. `files` is how many this process may have open: a connection takes two.
    #[must_use]
    pub fn settings(&self, files: u64) -> Settings {
        /// For listeners, watches and probes.
        const OWN_FILES: u64 = 100;
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        let room = files.saturating_sub(OWN_FILES) / 2;
        let room = u32::try_from(room).unwrap_or(u32::MAX).max(1);
        let connections = self.connections.map_or(room, |asked| asked.min(room));
        let share = (connections / 4).max(1);
        Settings {
            limits: Limits {
                connections: self.tenant_connections.min(share),
                handshakes: self.tenant_handshakes,
                burst: self.tenant_burst,
                patience: Duration::from_secs(5),
            },
            connections,
            openings: share,
            hello: Duration::from_secs(10),
            hold: seconds(self.hold_seconds),
            wake_hold: seconds(self.wake_hold_seconds),
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(3),
            silence: Silence {
                open: (self.idle_seconds > 0).then(|| seconds(self.idle_seconds)),
                half_closed: HALF_CLOSED,
            },
            proxies: self.proxy_protocol_from.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(files: u64, flags: &[&str]) -> (u32, u32) {
        let begin = ["stoker-gateway", "--routes=r.yaml"];
        let args = Args::parse_from(begin.iter().chain(flags));
        let settings = args.settings(files);
        (settings.connections, settings.limits.connections)
    }

    #[test]
    fn open_files_limit_connections_and_no_tenant_takes_them_all() {
        assert_eq!(connections(1_048_576, &[]), (524_238, 10_000));
        assert_eq!(connections(1024, &[]), (462, 115));
        assert_eq!(connections(0, &[]), (1, 1));
        assert_eq!(connections(1024, &["--connections=200"]), (200, 50));
        assert_eq!(connections(1024, &["--connections=2000"]), (462, 115));
        let few = ["--connections=200", "--tenant-connections=20"];
        assert_eq!(connections(1_048_576, &few), (200, 20));
    }
}
