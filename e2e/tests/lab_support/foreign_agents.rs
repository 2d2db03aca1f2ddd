//! Nobody but a node of the tenant is its agent (T7).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::ServerName;
use stoker_lab::credentials;
use stoker_pki::{Authority, KeyedCertificate, LeafRequest, LeafUsage};
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::door::{authority, tls};
use crate::walled::{TENANT, Walled};
use crate::world::World;

const OTHER: &str = "other";
const PORT: u16 = 8132;
/// What agents speak.
const PROTOCOL: &[u8] = b"stoker-tunnel/1";
/// What a warden says first to whom it takes for an agent: the beginning of HTTP/2, whose client it is.
const WELCOME: &[u8] = b"PRI * HTTP/2.0";
const NODES: &str = "system:nodes";

pub(crate) async fn only_a_node_of_the_tenant_is_an_agent(world: &World) -> Result<()> {
    let walled = Walled::of(world).await?;
    world.tenant(OTHER).await?;
    let (own, other) = (
        authority(world, TENANT).await?,
        authority(world, OTHER).await?,
    );
    let made_up = credentials::authority("kubernetes")?;
    let now = OffsetDateTime::now_utc();
    let yesterday = now - time::Duration::days(1);
    let worker = "system:node:worker-1";
    let refused = [
        ("no certificate", None),
        (
            "a node of another tenant",
            Some(leaf(&other, worker, Some(NODES), now)?),
        ),
        (
            "a node by an authority of its own",
            Some(leaf(&made_up, worker, Some(NODES), now)?),
        ),
        (
            "an administrator",
            Some(leaf(&own, "admin", Some("system:masters"), now)?),
        ),
        (
            "a node's name without its group",
            Some(leaf(&own, worker, None, now)?),
        ),
        (
            "a node's group without its name",
            Some(leaf(&own, "worker-1", Some(NODES), now)?),
        ),
        (
            "an expired node",
            Some(leaf(&own, worker, Some(NODES), yesterday)?),
        ),
    ];
    let status = world.status(TENANT).await?;
    let endpoint = status.control_plane_endpoint.context("no endpoint")?;
    let address: IpAddr = endpoint.split(':').next().unwrap_or_default().parse()?;
    let address = SocketAddr::new(address, PORT);
    let ca = own.certificate();
    for (who, certificate) in &refused {
        let is = accepted(address, ca, certificate.as_ref()).await?;
        println!("{who}: {}", if is { "accepted" } else { "refused" });
        ensure!(!is, "{who} is accepted as an agent");
    }
    // Else nobody at all was let in.
    let node = leaf(&own, "system:node:somebody", Some(NODES), now)?;
    ensure!(
        accepted(address, ca, Some(&node)).await?,
        "a node is refused"
    );
    let logs = walled.kubectl(&["logs", "far", "--tail=1"]).await;
    logs.context("the way to the node").map(drop)
}

fn leaf(
    authority: &Authority,
    user: &str,
    group: Option<&str>,
    at: OffsetDateTime,
) -> Result<KeyedCertificate> {
    let request = LeafRequest {
        common_name: user.to_owned(),
        organizations: group.map(str::to_owned).into_iter().collect(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: time::Duration::hours(1),
    };
    authority
        .issue(&request, at)
        .context("issuing a certificate")
}

/// Whether the warden speaks to whoever shows that.
async fn accepted(address: SocketAddr, ca: &str, who: Option<&KeyedCertificate>) -> Result<bool> {
    let mut config = tls(ca, who)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let socket = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    // TLS 1.3: a client hears after its own part whether its certificate was believed.
    let Ok(mut stream) = connector
        .connect(ServerName::try_from("kubernetes")?, socket)
        .await
    else {
        return Ok(false);
    };
    let mut heard = vec![0; WELCOME.len()];
    match timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await {
        Ok(Ok(_)) => Ok(heard == WELCOME),
        Ok(Err(_)) => Ok(false),
        Err(_) => bail!("neither refused nor accepted"),
    }
}
