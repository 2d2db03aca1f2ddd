//! The listener on a node, between clients that name nobody, or the cluster's own name of the API server, and gateways.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::world::{self, Gateway, Management, Tenant, free_port, handshake, program, until, who};
use crate::{LIMITS, sees, watching};

/// What a tenant's pods ask for; nobody knows it but their own API server.
const IN_CLUSTER: &str = "localhost";

/// A listener; killed when dropped.
struct Listener {
    address: SocketAddr,
    process: Child,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Listener {
    async fn start(tenant: &Tenant, gateways: &[&Gateway]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let servers: Vec<String> = gateways.iter().map(|gateway| gateway.at()).collect();
        let process = Command::new(program("stoker-node"))
            .arg("listener")
            .arg(format!("--listen={address}"))
            .arg(format!("--server={}", servers.join(",")))
            .arg(format!("--name={}", tenant.host))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let listener = Self { address, process };
        until("the listener is there", async || {
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        listener
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_name_nobody_reach_their_tenant_by_the_listener_of_their_node() {
    world::build();
    let (management, one, two) = tokio::join!(
        Management::start(),
        Tenant::start("one", 1, 1),
        Tenant::start("two", 2, 1),
    );
    for tenant in [&one, &two] {
        management.announce(tenant).await;
        management.ready(tenant, &tenant.addresses()).await;
    }
    let first = management.gateway(free_port(), &LIMITS).await;
    let second = management.gateway(free_port(), &LIMITS).await;
    let gateways = [&first, &second];
    let listeners = (
        Listener::start(&one, &gateways).await,
        Listener::start(&two, &gateways).await,
    );
    // At the gateway itself nobody has that name, and who has none is nobody's.
    let gateway = first.at().parse().unwrap();
    for name in [IN_CLUSTER, "127.0.0.1"] {
        assert!(handshake(gateway, one.tls(), name).await.is_err(), "{name}");
    }
    for (tenant, listener) in [(&one, &listeners.0), (&two, &listeners.1)] {
        let at = listener.address.to_string();
        let client = tenant.client_that_says(IN_CLUSTER, tenant, &at).await;
        assert_eq!(who(&client).await.unwrap(), tenant.name);
        // By address: no name at all.
        let address = tenant.addresses()[0].ip().to_string();
        let by_address = handshake(listener.address, tenant.tls(), &address);
        by_address.await.unwrap();
    }
    let foreign = listeners.1.address;
    assert!(handshake(foreign, one.tls(), IN_CLUSTER).await.is_err());
    one_gateway_is_lost(&management, &one, &listeners.0, (first, second)).await;
}

/// A watch over the gateway that stays goes on; new connections take less than a second.
async fn one_gateway_is_lost(
    management: &Management,
    one: &Tenant,
    listener: &Listener,
    gateways: (Gateway, Gateway),
) {
    let open = "stoker_gateway_tenant_connections_open{tenant=\"tenants/one\"}";
    let (stays, goes) = gateways;
    let before = stays.metric(open).await;
    // Clients in turn, until one is led over the gateway that stays.
    let at = listener.address.to_string();
    let client = loop {
        let client = one.client_that_says(IN_CLUSTER, one, &at).await;
        who(&client).await.unwrap();
        if stays.metric(open).await > before {
            break client;
        }
    };
    let mut watch = watching(&client).await;
    let port = goes.port;
    drop(goes);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        handshake(listener.address, one.tls(), IN_CLUSTER)
            .await
            .unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    println!("slowest handshake after a gateway was killed: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    sees(&mut watch, &client, "after-loss").await;
    // One that is back is used again, so the other may go.
    let back = management.gateway(port, &LIMITS).await;
    drop(stays);
    handshake(listener.address, one.tls(), IN_CLUSTER)
        .await
        .unwrap();
    drop(back);
}
