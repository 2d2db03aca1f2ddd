use std::path::Path;
use std::time::Duration;

use stoker_warden::tunnel::{Config, keep};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::ground::{DEADLINE, Running, Tenant, ask, echo, open, opened, refused};

/// One port that leads where the sender says.
async fn pointer(port: u16) -> (u16, watch::Sender<u16>, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let (point, pointed) = watch::channel(port);
    let task = Running::new(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let port = *pointed.borrow();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (here, point, task)
}

/// A port that nobody has yet, and an API server.
async fn free_port() -> (u16, TcpListener) {
    let api_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (stoker_lab::ports::free_port().unwrap(), api_server)
}

#[tokio::test]
async fn a_server_that_is_to_end_is_replaced_first_and_stays_while_it_is_needed() {
    let tenant = Tenant::new();
    tenant.write("count", "1");
    let (first_port, api_server) = free_port().await;
    let config = Config {
        api_server: Some(api_server.local_addr().unwrap()),
        ..tenant.near_config("1", first_port)
    };
    let first = config.socket.clone();
    let (end, ends) = oneshot::channel::<()>();
    let kept = Running::new(keep(config, async move { drop(ends.await) }));
    let second = tenant.near("2").await;
    let (port, point, _task) = pointer(first_port).await;
    let _agent = tenant.agent("a", &[], port);
    let (address, _echo) = echo().await;
    let target = address.to_string();
    while !first.exists() {
        sleep(Duration::from_millis(20)).await;
    }
    let mut stream = opened(&first, &target).await;

    point.send_replace(second.port);
    end.send(()).unwrap();
    drop(opened(&second.socket, &target).await);
    ask(&mut stream, "undisturbed").await.unwrap();
    drop(opened(&first, &target).await);
    assert!(!kept.is_finished(), "its API server still answers");
    drop(api_server);
    sleep(Duration::from_secs(1)).await;
    assert!(!kept.is_finished(), "a stream is still open");
    ask(&mut stream, "still").await.unwrap();
    drop(stream);
    let ended = timeout(DEADLINE, async {
        while !kept.is_finished() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_tried_again() {
    let tenant = Tenant::new();
    tenant.write("count", "1");
    let taken = TcpListener::bind("[::]:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = tenant.near_config("1", port);
    let socket = config.socket.clone();
    let kept = Running::new(keep(config, std::future::pending()));
    sleep(Duration::from_millis(200)).await;
    assert!(!kept.is_finished());
    drop(taken);
    let _agent = tenant.agent("a", &[], port);
    let (address, _echo) = echo().await;
    while !socket.exists() {
        sleep(Duration::from_millis(20)).await;
    }
    drop(opened(&socket, &address.to_string()).await);
}

#[tokio::test]
async fn who_asks_before_the_first_agent_is_there_waits_for_it() {
    let tenant = Tenant::new();
    tenant.write("count", "1");
    let near = tenant.near("1").await;
    let (address, _echo) = echo().await;
    let target = address.to_string();
    let asked = open(&near.socket, &target);
    let agent = async {
        sleep(Duration::from_millis(300)).await;
        tenant.agent("a", &[], near.port)
    };
    let (answer, _agent) = tokio::join!(asked, agent);
    ask(&mut answer.unwrap(), "here").await.unwrap();
}

/// One port that leads to several, as a Service does.
async fn balancer(ports: Vec<u16>) -> (u16, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = Running::new(async move {
        for number in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            // Never in turn: the first is met twice as often.
            let port = ports[number % (ports.len() + 1) % ports.len()];
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, task)
}

#[tokio::test]
async fn an_agent_finds_every_server_behind_one_address() {
    let tenant = Tenant::new();
    tenant.write("count", "3\n");
    let near = [
        tenant.near("1").await,
        tenant.near("2").await,
        tenant.near("3").await,
    ];
    let (port, _balancer) = balancer(near.iter().map(|near| near.port).collect()).await;
    let _agent = tenant.agent("a", &[], port);
    let (address, _echo) = echo().await;
    for near in &near {
        let mut stream = opened(&near.socket, &address.to_string()).await;
        ask(&mut stream, "here").await.unwrap();
    }
}

#[tokio::test]
async fn servers_that_are_added_are_found() {
    let tenant = Tenant::new();
    tenant.write("count", "1");
    let near = [tenant.near("1").await, tenant.near("2").await];
    let (port, _balancer) = balancer(near.iter().map(|near| near.port).collect()).await;
    let _agent = tenant.agent("a", &[], port);
    let (address, _echo) = echo().await;
    let mut stream = opened(&near[0].socket, &address.to_string()).await;
    tenant.write("count", "2");
    drop(opened(&near[1].socket, &address.to_string()).await);
    ask(&mut stream, "undisturbed").await.unwrap();
}

#[tokio::test]
async fn a_server_that_was_restarted_is_dialled_again() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let (port, socket) = (near.port, near.socket.clone());
    let _agent = tenant.agent("a", &[], port);
    let (address, _echo) = echo().await;
    drop(opened(&socket, &address.to_string()).await);
    drop(near);
    // The port is free once its connections have ended.
    sleep(Duration::from_millis(300)).await;
    let near = tenant.near_at("near", port).await;
    let mut stream = opened(&near.socket, &address.to_string()).await;
    ask(&mut stream, "again").await.unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_makes_a_new_connection_and_cuts_no_stream() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let agent = tenant.agent("a", &[], near.port);
    let (address, _echo) = echo().await;
    let mut old = opened(&near.socket, &address.to_string()).await;
    ask(&mut old, "before").await.unwrap();

    // With addresses, which only a new connection can tell.
    let renewed = tenant.node("a", &["127.0.0.1"], OffsetDateTime::now_utc());
    assert_eq!(renewed.client_certificate, agent.files.client_certificate);
    let _other = tenant.refusing("b", &[], near.port);
    always_opens(&near.socket, &address.to_string()).await;
    ask(&mut old, "after").await.unwrap();
}

/// Waits until what is asked for never goes to an agent that refuses it: there is one to which the target's address is
/// attested, or none that refuses.
async fn always_opens(socket: &Path, target: &str) {
    let always = async {
        let mut in_a_row = 0;
        while in_a_row < 40 {
            let stream = open(socket, target).await;
            in_a_row = if stream.is_ok() { in_a_row + 1 } else { 0 };
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, always)
        .await
        .expect("it still goes to one that refuses");
}

#[tokio::test]
async fn a_drained_connection_keeps_its_streams_whatever_else_is_told() {
    let tenant = Tenant::new();
    tenant.write("count", "1");
    let (port, api_server) = free_port().await;
    let config = Config {
        api_server: Some(api_server.local_addr().unwrap()),
        ..tenant.near_config("1", port)
    };
    let socket = config.socket.clone();
    let (end, ends) = oneshot::channel::<()>();
    let _kept = Running::new(keep(config, async move { drop(ends.await) }));
    let _agent = tenant.agent("a", &[], port);
    let (address, _echo) = echo().await;
    while !socket.exists() {
        sleep(Duration::from_millis(20)).await;
    }
    let mut old = opened(&socket, &address.to_string()).await;
    tenant.node("a", &["127.0.0.1"], OffsetDateTime::now_utc());
    let other = tenant.refusing("b", &[], port);
    always_opens(&socket, &address.to_string()).await;
    drop(other);
    // The new connection is there; the old one was told in the same moment to drain, and has heard it by now.
    sleep(Duration::from_millis(500)).await;
    end.send(()).unwrap();
    sleep(Duration::from_secs(1)).await;
    ask(&mut old, "undisturbed").await.unwrap();
}

/// One port that leads to another until told to swallow everything, as a machine without power.
async fn cable(port: u16) -> (u16, watch::Sender<bool>, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let (cut, is_cut) = watch::channel(false);
    let task = Running::new(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let until_cut = async { drop(is_cut.wait_for(|cut| *cut).await) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = until_cut => std::future::pending().await,
                }
            });
        }
    });
    (here, cut, task)
}

#[tokio::test]
async fn an_agent_that_has_just_died_costs_a_stream_seconds_and_not_its_life() {
    let tenant = Tenant::new();
    tenant.write("count", "1");
    let near = tenant.near("near").await;
    let (through, cut, _cable) = cable(near.port).await;
    let _dies = tenant.agent("a", &["127.0.0.1"], through);
    let _lives = tenant.agent("b", &["127.0.0.2"], near.port);
    let (address, _echo) = echo().await;
    // An address of neither: each is asked in its turn.
    let of = |ip: &str| format!("{ip}:{}", address.port());
    let target = of("127.0.0.3");
    // Both are there when nothing of theirs goes to a third one, which then leaves.
    let refuses = tenant.refusing("c", &[], near.port);
    refused(&near.socket, &target, "403 ").await;
    for ip in ["127.0.0.1", "127.0.0.2"] {
        always_opens(&near.socket, &of(ip)).await;
    }
    drop(refuses);
    always_opens(&near.socket, &target).await;
    cut.send_replace(true);
    for _ in 0..4 {
        let asked = open(&near.socket, &target);
        // An API server waits 10 s for a webhook.
        let answer = timeout(Duration::from_secs(9), asked).await;
        ask(&mut answer.expect("an answer").unwrap(), "here")
            .await
            .unwrap();
    }
}
