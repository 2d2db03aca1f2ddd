use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::ground::{DEADLINE, Running, Tenant, ask, echo, opened};

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
    timeout(DEADLINE, async {
        // Until what is a's never goes to b.
        let mut in_a_row = 0;
        while in_a_row < 40 {
            let stream = super::ground::open(&near.socket, &address.to_string()).await;
            in_a_row = if stream.is_ok() { in_a_row + 1 } else { 0 };
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the new connection is used");
    ask(&mut old, "after").await.unwrap();
}
