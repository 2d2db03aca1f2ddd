//! The gateway between real clients and real API servers of three tenants: its routes come from a real management API
//! server, by the rights that `manifests/gateway.yaml` gives it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "gateway_support/node.rs"]
mod node;
#[path = "support/tenants.rs"]
mod tenants;
#[path = "gateway_support/world.rs"]
mod world;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use world::{Gateway, Management, Tenant, free_port, handshake, until, who};

const LIMITS: [&str; 6] = [
    "--tenant-handshakes=50",
    "--tenant-burst=50",
    "--tenant-connections=300",
    "--hold-seconds=20",
    "--drain-delay-seconds=1",
    "--drain-seconds=4",
];

/// All of it on one set of API servers, which take longer to start than everything else.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_leads_every_client_to_its_own_tenant() {
    world::build();
    let (mut management, mut one, two, three) = tokio::join!(
        Management::start(),
        Tenant::start("one", 1, 2),
        Tenant::start("two", 2, 1),
        Tenant::start("three", 3, 1),
    );
    for tenant in [&one, &two] {
        management.announce(tenant).await;
        management.ready(tenant, &tenant.addresses()).await;
    }
    let port = free_port();
    let gateway = management.gateway(port, &LIMITS).await;
    certificates_pass_and_no_tenant_is_anothers(&gateway, &one, &two).await;
    who_asks_for_nobody_is_told(&gateway, &one).await;
    a_tenant_is_there_as_soon_as_it_is_ready(&management, &gateway, &three).await;
    both_ip_families_and_load_balancers(&management, &gateway, &one).await;
    a_flood_of_one_tenant_leaves_the_other_alone(&gateway, &one, &two).await;
    replicas_of_an_api_server_come_and_go(&management, &gateway, &mut one).await;
    a_deleted_tenant_is_unknown(&management, &gateway, &three).await;
    routes_outlive_the_management_api_server(&mut management, &gateway, &one).await;
    drop(gateway);
}

/// Replicas of the gateway itself: at one port, as a Service has them at one address.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_gateways_may_end() {
    world::build();
    let (management, one) = tokio::join!(Management::start(), Tenant::start("one", 1, 1));
    management.announce(&one).await;
    management.ready(&one, &one.addresses()).await;
    let port = free_port();
    let first = management.gateway(port, &LIMITS).await;
    let tls = one.tls();
    let address: SocketAddr = first.at().parse().unwrap();
    let client = one.client(&first.at()).await;
    let mut watch = watching(&client).await;
    let second = management.gateway(port, &LIMITS).await;

    // Drained: taken by the other one, and the open watch lives on.
    first.terminate();
    until("the first is not ready", async || {
        first.is_ready().await != Some(true)
    })
    .await;
    let begun = Instant::now();
    let mut refused = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        refused += usize::from(handshake(address, tls.clone(), &one.host).await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sees(&mut watch, &client, "after-drain").await;
    println!("refused while one of two was drained: {refused}");
    assert!(refused <= 1, "{refused}");
    until("the drain has an end", async || {
        first.is_ready().await.is_none()
    })
    .await;

    // Killed: the other one has it all.
    let third = management.gateway(port, &LIMITS).await;
    drop(second);
    for _ in 0..20 {
        handshake(address, tls.clone(), &one.host).await.unwrap();
    }
    drop(third);
}

async fn certificates_pass_and_no_tenant_is_anothers(
    gateway: &Gateway,
    one: &Tenant,
    two: &Tenant,
) {
    for tenant in [one, two] {
        let client = tenant.client(&gateway.at()).await;
        assert_eq!(who(&client).await.unwrap(), tenant.name);
    }
    let stranger = one.client_of(two, &gateway.at()).await;
    let refused = who(&stranger).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 401),
        "{refused:?}"
    );
}

async fn who_asks_for_nobody_is_told(gateway: &Gateway, one: &Tenant) {
    let address = gateway.at().parse().unwrap();
    for (name, says) in [
        (
            "ffffffffffffffffffffffffffffffff.clusters.example.com",
            "UnrecognisedName",
        ),
        ("kubernetes.default.svc", "UnrecognisedName"),
        ("127.0.0.1", "MissingExtension"),
    ] {
        let said = handshake(address, one.tls(), name)
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(says), "{name}: {said}");
    }
}

async fn a_tenant_is_there_as_soon_as_it_is_ready(
    management: &Management,
    gateway: &Gateway,
    three: &Tenant,
) {
    management.announce(three).await;
    let name = three.host.clone();
    let address = gateway.at().parse().unwrap();
    until("it is known", async || {
        gateway.metric("stoker_gateway_routes").await == 3
    })
    .await;
    let tls = three.tls();
    let held = tokio::spawn(async move { handshake(address, tls, &name).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!held.is_finished(), "nothing of it is ready");
    let begun = Instant::now();
    management.ready(three, &three.addresses()).await;
    held.await.unwrap().unwrap();
    println!("held until ready, then led on within {:?}", begun.elapsed());
}

async fn both_ip_families_and_load_balancers(
    management: &Management,
    gateway: &Gateway,
    one: &Tenant,
) {
    let over_ipv6 = one.client(&format!("[::1]:{}", gateway.port)).await;
    assert_eq!(who(&over_ipv6).await.unwrap(), "one");
    let trusting = management
        .gateway(free_port(), &["--proxy-protocol-from=127.0.0.0/8"])
        .await;
    let direct = one.client(&trusting.at()).await;
    assert!(who(&direct).await.is_err(), "without a header");
    let balancer = load_balancer(trusting.at().parse().unwrap()).await;
    let client = one.client(&balancer.to_string()).await;
    assert_eq!(who(&client).await.unwrap(), "one");
}

/// Something that begins connections with a PROXY header.
async fn load_balancer(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(gateway).await.unwrap();
                let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 7 443\r\n";
                stream.write_all(header).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
            });
        }
    });
    address
}

async fn a_flood_of_one_tenant_leaves_the_other_alone(
    gateway: &Gateway,
    one: &Tenant,
    two: &Tenant,
) {
    let address: SocketAddr = gateway.at().parse().unwrap();
    let client = one.client(&gateway.at()).await;
    let quiet = slowest(&client).await;
    let flood: Vec<_> = (0..8)
        .map(|_| {
            let (tls, name) = (two.tls(), two.host.clone());
            tokio::spawn(async move {
                let mut kept = Vec::new();
                loop {
                    kept.extend(handshake(address, tls.clone(), &name).await.ok());
                    kept.truncate(100);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let flooded = slowest(&client).await;
    let passed = gateway
        .metric("stoker_gateway_tenant_connections_total{tenant=\"tenants/two\"}")
        .await;
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    println!(
        "slowest of 50 requests: {quiet:?}, with another tenant flooded {flooded:?}; {passed} of the flood passed"
    );
    assert!(flooded < Duration::from_secs(1), "{flooded:?}");
    assert!(passed < 700, "{passed}");
    let open = "stoker_gateway_tenant_connections_open{tenant=\"tenants/two\"}";
    until("its connections are given back", async || {
        gateway.metric(open).await == 0
    })
    .await;
    // The turns that the flood took are over before the next part asks for one.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn slowest(client: &Client) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let begun = Instant::now();
        who(client).await.unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

async fn replicas_of_an_api_server_come_and_go(
    management: &Management,
    gateway: &Gateway,
    one: &mut Tenant,
) {
    let tls = one.tls();
    let address: SocketAddr = gateway.at().parse().unwrap();
    // One that stays has all the connections, and a watch.
    let stays = one.servers[0].0;
    management.ready(one, &[stays]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut watch = watching(&one.client(&gateway.at()).await).await;
    // What is made there arrives there: the two have a state of their own.
    let client = one.client(&stays.to_string()).await;
    management.ready(one, &one.addresses()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    sees(&mut watch, &client, "after-reload").await;
    // The other one is gone, and nobody has told yet.
    let (_, killed) = one.servers.pop().unwrap();
    drop(killed);
    for _ in 0..20 {
        handshake(address, tls.clone(), &one.host).await.unwrap();
    }
    assert!(
        gateway
            .metric("stoker_gateway_backend_failures_total")
            .await
            > 0
    );
    sees(&mut watch, &client, "after-kill").await;
}

async fn a_deleted_tenant_is_unknown(management: &Management, gateway: &Gateway, three: &Tenant) {
    let tenants = management.tenants();
    tenants
        .delete(three.name, &DeleteParams::default())
        .await
        .unwrap();
    let address = gateway.at().parse().unwrap();
    until("it is unknown", async || {
        let said = handshake(address, three.tls(), &three.host).await.map(drop);
        said.is_err_and(|said| said.to_string().contains("UnrecognisedName"))
    })
    .await;
}

async fn routes_outlive_the_management_api_server(
    management: &mut Management,
    gateway: &Gateway,
    one: &Tenant,
) {
    drop(management.server.take());
    until("the gateway has noticed", async || {
        gateway.metric("stoker_gateway_source_failures_total").await > 0
    })
    .await;
    let client = one.client(&gateway.at()).await;
    assert_eq!(who(&client).await.unwrap(), "one");
    assert_eq!(gateway.is_ready().await, Some(true));
}

type Watch =
    std::pin::Pin<Box<dyn futures::Stream<Item = kube::Result<WatchEvent<Namespace>>> + Send>>;

/// An open watch of namespaces.
async fn watching(client: &Client) -> Watch {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let listed = namespaces.list(&ListParams::default()).await.unwrap();
    let version = listed.metadata.resource_version.unwrap();
    Box::pin(
        namespaces
            .watch(&WatchParams::default(), &version)
            .await
            .unwrap(),
    )
}

/// What is made now arrives at the watch.
async fn sees(watch: &mut Watch, client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let arrives = async {
        while let Some(event) = watch.try_next().await.unwrap() {
            if matches!(&event, WatchEvent::Added(found) if found.metadata.name.as_deref() == Some(name))
            {
                return;
            }
        }
        panic!("the watch was cut before {name}");
    };
    tokio::time::timeout(Duration::from_secs(10), arrives)
        .await
        .unwrap();
}
