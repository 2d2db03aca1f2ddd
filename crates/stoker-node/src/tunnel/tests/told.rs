use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::Metrics;
use super::ground::{DEADLINE, Running, Tenant, ask, echo, opened, refused};
use crate::health;

/// Where these are asked for.
async fn told(metrics: &Arc<Metrics>) -> (SocketAddr, Running) {
    let listener = health::listen(SocketAddr::from(([127, 0, 0, 1], 0)), false).await;
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    (
        address,
        Running::new(health::serve(listener, metrics.clone())),
    )
}

/// An answer, whole.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn until(address: SocketAddr, path: &str, says: &str) {
    let limit = Instant::now() + DEADLINE;
    loop {
        let answer = get(address, path).await;
        if answer.contains(says) {
            return;
        }
        assert!(Instant::now() < limit, "{says} is not in {answer}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_scrape_tells_what_the_tunnel_carries_and_a_probe_whether_it_is_up() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let agent = tenant.agent("a", &[], near.port);
    let (told, _told) = told(&agent.metrics).await;
    let (address, _echo) = echo().await;
    let mut stream = opened(&near.socket, &address.to_string()).await;
    ask(&mut stream, "hello").await.unwrap();
    assert!(get(told, "/readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(get(told, "/elsewhere").await.starts_with("HTTP/1.1 404 "));
    let metrics = get(told, "/metrics").await;
    for line in [
        "_links{server=\"",
        "_connections_total 1\n",
        "_streams_open 1\n",
        "_received_bytes_total 5\n",
        "_sent_bytes_total 5\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    drop(stream);
    until(told, "/metrics", "_streams_open 0\n").await;
    let nobody = stoker_lab::ports::free_port().unwrap();
    let nobody = format!("127.0.0.1:{nobody}");
    refused(&near.socket, &nobody, "502 ").await;
    until(
        told,
        "/metrics",
        "_dial_failures_total{reason=\"Failed\"} 1\n",
    )
    .await;

    drop(near);
    until(told, "/readyz", "HTTP/1.1 503 ").await;
    until(told, "/metrics", "{reason=\"Unreachable\"}").await;
    let metrics = get(told, "/metrics").await;
    assert!(metrics.contains("_disconnections_total 1\n"), "{metrics}");
    assert!(!metrics.contains("_links{"), "{metrics}");
    assert!(get(told, "/livez").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn connections_without_a_word_keep_nobody_else_out() {
    let (told, _told) = told(&Arc::default()).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(told).await.unwrap());
    }
    let begun = Instant::now();
    assert!(get(told, "/livez").await.starts_with("HTTP/1.1 200 "));
    // A kubelet waits for five.
    assert!(begun.elapsed() < Duration::from_secs(4));
}
