//! The process from its clients' side: TLS with client certificates, limits, reloads, failures, its end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test may fail, and shows the process's log"
)]

#[path = "support/world.rs"]
mod world;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use stoker_gateway::proxy_protocol::{self, Ends};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use world::{Authority, Backend, Gateway, echo, free_port, greeting, handshake, route, until};

const ONE: &str = "one.example.com";
const TWO: &str = "two.example.com";

#[tokio::test(flavor = "multi_thread")]
async fn each_name_leads_to_its_tenant_and_client_certificates_pass() {
    let (one, two) = (Authority::new(), Authority::new());
    let first = Backend::start(&one, ONE, "one").await;
    let second = Backend::start(&two, TWO, "two").await;
    let routes = [route(ONE, &[first.address]), route(TWO, &[second.address])].concat();
    let gateway = Gateway::start(&format!("routes:{routes}"), &[]).await;
    let (client, other) = (one.client(), two.client());
    let mut stream = gateway.connect(&client, ONE).await.unwrap();
    assert_eq!(greeting(&mut stream).await.unwrap(), "one");
    echo(&mut stream, &"x".repeat(200_000)).await.unwrap();
    let mut stream = gateway.connect(&other, &TWO.to_uppercase()).await.unwrap();
    assert_eq!(greeting(&mut stream).await.unwrap(), "two");
    // Another's certificate is shown to the one that is asked, which refuses it.
    assert!(gateway.connect(&client, TWO).await.is_err());
    until("bytes are counted", async || {
        gateway
            .metric(&format!(
                "stoker_gateway_tenant_sent_bytes_total{{tenant=\"{ONE}\"}}"
            ))
            .await
            > 200_000
    })
    .await;
    assert_eq!(gateway.metric("stoker_gateway_routes").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tunnel_is_reached_by_the_same_name() {
    let authority = Authority::new();
    let api = Backend::start(&authority, ONE, "api").await;
    let tunnel = Backend::start(&authority, ONE, "tun").await;
    let routes = format!(
        "routes:{}\n  tunnel: [{:?}]",
        route(ONE, &[api.address]),
        tunnel.address.to_string()
    );
    let gateway = Gateway::start(&routes, &[]).await;
    for (protocol, says) in [("stoker-tunnel/1", "tun"), ("h2", "api")] {
        let mut client = ClientConfig::clone(&authority.client());
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let mut stream = gateway.connect(&Arc::new(client), ONE).await.unwrap();
        assert_eq!(greeting(&mut stream).await.unwrap(), says);
    }
}

#[tokio::test]
async fn who_asks_for_nobody_known_is_told_so() {
    let authority = Authority::new();
    let gateway = Gateway::start("routes: []", &[]).await;
    let client = authority.client();
    let said = gateway
        .connect(&client, "three.example.com")
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("UnrecognisedName"), "{said}");
    let said = gateway
        .connect(&client, "192.0.2.1")
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("MissingExtension"), "{said}");
    let mut plain = TcpStream::connect(gateway.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(plain.read(&mut [0]).await.unwrap_or(0), 0);
    for reason in ["UnknownName", "NoName", "NotTls"] {
        let series = format!("stoker_gateway_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&series).await, 1, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_is_passed_over_before_anything_is_lost() {
    let authority = Authority::new();
    let good = Backend::start(&authority, ONE, "one").await;
    // One refuses, one takes connections and drops them.
    let refuses: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let drops = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dropping = drops.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = drops.accept().await {
            let _ = stream.read(&mut [0; 100]).await;
        }
    });
    let routes = format!("routes:{}", route(ONE, &[good.address, refuses, dropping]));
    let gateway = Gateway::start(&routes, &[]).await;
    let client = authority.client();
    for _ in 0..10 {
        let mut stream = gateway.connect(&client, ONE).await.unwrap();
        assert_eq!(greeting(&mut stream).await.unwrap(), "one");
    }
    assert_eq!(good.seen(), 10);
    // While they rest they are not asked.
    let failures = gateway
        .metric("stoker_gateway_backend_failures_total")
        .await;
    assert!((2..=4).contains(&failures), "{failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_takes_connections_and_is_silent_is_passed_over() {
    let authority = Authority::new();
    let good = Backend::start(&authority, ONE, "one").await;
    // The kernel takes connections for it, and nobody reads them: a process that hangs.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = silent.local_addr().unwrap();
    let routes = format!("routes:{}", route(ONE, &[hangs, good.address]));
    let gateway = Gateway::start(&routes, &[]).await;
    let client = authority.client();
    let mut slowest = Duration::ZERO;
    for _ in 0..6 {
        let begun = Instant::now();
        let mut stream = gateway.connect(&client, ONE).await.unwrap();
        assert_eq!(greeting(&mut stream).await.unwrap(), "one");
        slowest = slowest.max(begun.elapsed());
    }
    assert!((3..5).contains(&slowest.as_secs()), "{slowest:?}");
    assert_eq!(
        gateway
            .metric("stoker_gateway_backend_failures_total")
            .await,
        1
    );
    // One that has no other is waited for, longer than that.
    gateway.change_routes(&format!("routes:{}", route(ONE, &[hangs])));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let waits = tokio::time::timeout(Duration::from_secs(5), gateway.connect(&client, ONE));
    assert!(waits.await.is_err(), "it was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_held_until_the_tenant_is_ready_and_a_reload_cuts_none() {
    let authority = Authority::new();
    let gateway = Gateway::start(
        &format!("routes:{}", route(ONE, &[])),
        &["--hold-seconds=20"],
    )
    .await;
    let client = authority.client();
    let held = {
        let address = gateway.address;
        let client = client.clone();
        tokio::spawn(async move {
            handshake(TcpStream::connect(address).await.unwrap(), &client, ONE).await
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!held.is_finished());
    let first = Backend::start(&authority, ONE, "one").await;
    gateway.change_routes(&format!("routes:{}", route(ONE, &[first.address])));
    let mut stream = held.await.unwrap().unwrap();
    assert_eq!(greeting(&mut stream).await.unwrap(), "one");
    let second = Backend::start(&authority, ONE, "new").await;
    gateway.change_routes(&format!("routes:{}", route(ONE, &[second.address])));
    until("new connections go to the new one", async || {
        let mut stream = gateway.connect(&client, ONE).await.unwrap();
        greeting(&mut stream).await.unwrap() == "new"
    })
    .await;
    echo(&mut stream, "still here").await.unwrap();
    gateway.change_routes("routes: []");
    until("the name is gone", async || {
        gateway.connect(&client, ONE).await.is_err()
    })
    .await;
    echo(&mut stream, "still here").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_tenant_leaves_the_other_alone() {
    let (one, two) = (Authority::new(), Authority::new());
    let first = Backend::start(&one, ONE, "one").await;
    let second = Backend::start(&two, TWO, "two").await;
    let routes = [route(ONE, &[first.address]), route(TWO, &[second.address])].concat();
    let limits = [
        "--tenant-handshakes=20",
        "--tenant-burst=20",
        "--tenant-connections=150",
    ];
    let gateway = Arc::new(Gateway::start(&format!("routes:{routes}"), &limits).await);
    let client = one.client();
    let begun = Instant::now();
    let flood: Vec<_> = (0..400)
        .map(|_| {
            let (gateway, client) = (gateway.clone(), client.clone());
            tokio::spawn(async move { gateway.connect(&client, ONE).await })
        })
        .collect();
    let client = two.client();
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        let mut stream = gateway.connect(&client, TWO).await.unwrap();
        assert_eq!(greeting(&mut stream).await.unwrap(), "two");
        worst = worst.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut passed = Vec::new();
    for stream in flood {
        passed.extend(stream.await.unwrap().ok());
    }
    println!(
        "of 400 {} passed in {:?}; the other's slowest {worst:?}",
        passed.len(),
        begun.elapsed()
    );
    // 20 at once and 20 a second for the five seconds that connections wait.
    assert!((100..=150).contains(&passed.len()), "{}", passed.len());
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    let open = format!("stoker_gateway_tenant_connections_open{{tenant=\"{ONE}\"}}");
    assert_eq!(gateway.metric(&open).await, passed.len() as u64);
    drop(passed);
    until("places are given back", async || {
        gateway.metric(&open).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_the_last_connection_has_ended() {
    let authority = Authority::new();
    let backend = Backend::start(&authority, ONE, "one").await;
    let routes = format!("routes:{}", route(ONE, &[backend.address]));
    let mut gateway = Gateway::start(&routes, &["--drain-delay-seconds=1"]).await;
    let client = authority.client();
    let mut open = gateway.connect(&client, ONE).await.unwrap();
    greeting(&mut open).await.unwrap();
    gateway.terminate();
    until("not ready", async || gateway.ready().await == Some(false)).await;
    // Load balancers do not know yet.
    drop(gateway.connect(&client, ONE).await.unwrap());
    until("nobody is taken", async || {
        TcpStream::connect(gateway.address)
            .await
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        echo(&mut open, "still here").await.unwrap();
    }
    assert!(gateway.process.try_wait().unwrap().is_none());
    drop(open);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = gateway.process.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_has_an_end() {
    let authority = Authority::new();
    let backend = Backend::start(&authority, ONE, "one").await;
    let routes = format!("routes:{}", route(ONE, &[backend.address]));
    let limits = ["--drain-delay-seconds=0", "--drain-seconds=1"];
    let gateway = Gateway::start(&routes, &limits).await;
    let mut open = gateway.connect(&authority.client(), ONE).await.unwrap();
    greeting(&mut open).await.unwrap();
    let begun = Instant::now();
    gateway.terminate();
    assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
    assert!(
        (1..5).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_tell_who_the_client_is_and_backends_are_told() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let routes = format!("routes:{}\n  proxyProtocol: true", route(ONE, &[backend]));
    let gateway = Gateway::start(&routes, &["--proxy-protocol-from=127.0.0.0/8"]).await;
    let told = Ends {
        source: "[2001:db8::7]:7".parse().unwrap(),
        destination: "[2001:db8::1]:443".parse().unwrap(),
    };
    let headers: [(Vec<u8>, Ends); 2] = [
        (proxy_protocol::write(&told), told),
        (
            b"PROXY TCP4 192.0.2.7 192.0.2.1 7 443\r\n".to_vec(),
            Ends {
                source: "192.0.2.7:7".parse().unwrap(),
                destination: "192.0.2.1:443".parse().unwrap(),
            },
        ),
    ];
    for (header, told) in headers {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        // In pieces, as a network may deliver it.
        let (begin, end) = header.split_at(header.len() / 2);
        stream.write_all(begin).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(end).await.unwrap();
        let _client = spawn_handshake(stream, authority.client());
        let (mut seen, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 300];
        let length = seen.read(&mut heard).await.unwrap();
        let header = proxy_protocol::read(&heard[..length]).unwrap().unwrap();
        assert_eq!(header.ends, Some(told));
        assert_eq!(heard[header.length], 22, "the ClientHello follows");
    }
    // Without one nobody is let in from there.
    let client = authority.client();
    assert!(gateway.connect(&client, ONE).await.is_err());
    let series = "stoker_gateway_refused_total{reason=\"NoProxyHeader\"}";
    assert_eq!(gateway.metric(series).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_from_somebody_who_is_not_trusted_is_refused() {
    let gateway = Gateway::start("routes: []", &["--proxy-protocol-from=192.0.2.0/24"]).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream
        .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 7 443\r\n")
        .await
        .unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    let series = "stoker_gateway_refused_total{reason=\"NotTls\"}";
    assert_eq!(gateway.metric(series).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_on_a_node_says_where_to_and_is_not_believed_who_the_client_is() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let routes = format!("routes:{}\n  proxyProtocol: true", route(ONE, &[backend]));
    let behind = Gateway::start(&routes, &["--proxy-protocol-from=127.0.0.2/32"]).await;
    let claim = Ends {
        source: "192.0.2.7:7".parse().unwrap(),
        destination: "192.0.2.1:443".parse().unwrap(),
    };
    let with_name = |name: &str| {
        let mut header = proxy_protocol::write(&claim);
        let length = u8::try_from(name.len()).unwrap();
        header[15] += length + 3;
        header.extend([2, 0, length]);
        header.extend(name.as_bytes());
        header
    };
    // The hello names somebody else, as pods do that dial kubernetes.default.svc.
    let handshake_after = |header: Vec<u8>| {
        let (address, client) = (behind.address, authority.client());
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&header).await?;
            handshake(stream, &client, TWO).await.map(drop)
        })
    };
    let _client = handshake_after(with_name(ONE));
    let (mut seen, peer) = listener.accept().await.unwrap();
    let mut heard = vec![0; 300];
    let length = seen.read(&mut heard).await.unwrap();
    let header = proxy_protocol::read(&heard[..length]).unwrap().unwrap();
    let told = header.ends.unwrap();
    assert_eq!(told.source.ip(), peer.ip(), "the claim is passed on");
    assert_eq!(heard[header.length], 22, "the ClientHello follows");
    let unknown = handshake_after(with_name("three.example.com"));
    let said = unknown.await.unwrap().unwrap_err().to_string();
    assert!(said.contains("UnrecognisedName"), "{said}");
    // One that names nobody comes from a load balancer that is not trusted.
    let nobody = handshake_after(proxy_protocol::write(&claim));
    assert!(nobody.await.unwrap().is_err());
    let series = "stoker_gateway_refused_total{reason=\"ProxyHeader\"}";
    assert_eq!(behind.metric(series).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_and_ipv6_are_served_at_one_port() {
    let authority = Authority::new();
    let backend = Backend::start_at(&authority, ONE, "one", "[::1]:0").await;
    let routes = format!("routes:{}", route(ONE, &[backend.address]));
    let port = free_port();
    let gateway = Gateway::start_at(&format!("[::]:{port}"), &routes, &[]).await;
    let client = authority.client();
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let stream = TcpStream::connect(&address).await.unwrap();
        let mut stream = handshake(stream, &client, ONE).await.unwrap();
        assert_eq!(greeting(&mut stream).await.unwrap(), "one", "{address}");
    }
    drop(gateway);
}

fn spawn_handshake(stream: TcpStream, client: Arc<ClientConfig>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { drop(handshake(stream, &client, ONE).await) })
}
