use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ground::{DEADLINE, Tenant, ask, echo, open, opened, refused, target};

#[tokio::test]
async fn without_an_agent_a_stream_is_refused_and_the_reason_is_in_the_status_line() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let refusal = open(&near.socket, "10.0.0.1:10250").await.unwrap_err();
    assert_eq!(
        refusal,
        "HTTP/1.1 503 no tunnel agent of this cluster is connected"
    );
}

#[tokio::test]
async fn what_is_no_connect_is_refused() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    for wrong in ["nowhere", "host:99999", "a b:1"] {
        let refusal = open(&near.socket, wrong).await.unwrap_err();
        assert!(refusal.starts_with("HTTP/1.1 400 "), "{wrong}: {refusal}");
    }
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let _agent = tenant.agent("a", &[], near.port);
    // Answers only once it has heard the end.
    let (address, _target) = target(|mut socket| async move {
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).await.unwrap();
        socket
            .write_all(format!("{} bytes", heard.len()).as_bytes())
            .await
            .unwrap();
    })
    .await;
    let mut stream = opened(&near.socket, &address.to_string()).await;
    stream.write_all(&vec![7; 3_000_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "3000000 bytes");
}

#[tokio::test]
async fn the_reason_why_a_target_does_not_answer_is_passed_on() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let agent = tenant.agent("a", &[], near.port);
    let (address, running) = echo().await;
    drop(opened(&near.socket, &address.to_string()).await);
    drop(running);
    refused(
        &near.socket,
        &address.to_string(),
        "502 node a: Connection refused",
    )
    .await;
    drop(agent);
    refused(&near.socket, &address.to_string(), "503 ").await;
}

#[tokio::test]
async fn a_thousand_streams_at_once() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let _agent = tenant.agent("a", &[], near.port);
    let (address, _echo) = echo().await;
    let address = address.to_string();
    let mut open = vec![opened(&near.socket, &address).await];
    while open.len() < 1000 {
        open.push(opened(&near.socket, &address).await);
    }
    let mut asking = JoinSet::new();
    for (number, mut stream) in open.into_iter().enumerate() {
        asking.spawn(async move {
            for round in 0..3 {
                ask(&mut stream, &format!("stream {number} round {round}"))
                    .await
                    .unwrap();
            }
            stream
        });
    }
    let mut done = 0;
    while let Some(stream) = asking.join_next().await {
        stream.unwrap();
        done += 1;
    }
    assert_eq!(done, 1000);
}

#[tokio::test]
async fn an_agent_that_dies_ends_its_own_streams_alone() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let a = tenant.agent("a", &["127.0.0.1"], near.port);
    let (address, _echo) = echo().await;
    let mut through_a = opened(&near.socket, &address.to_string()).await;
    ask(&mut through_a, "through a").await.unwrap();
    let _b = tenant.agent("b", &["127.0.0.2"], near.port);
    let other = format!("127.0.0.2:{}", address.port());
    // b is connected when what is its own no longer goes through a.
    sleep(Duration::from_millis(500)).await;
    let mut through_b = opened(&near.socket, &other).await;
    ask(&mut through_b, "through b").await.unwrap();

    drop(a);
    let mut byte = [0];
    let ended = timeout(DEADLINE, through_a.read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    ask(&mut through_b, "still through b").await.unwrap();
    let mut again = opened(&near.socket, &address.to_string()).await;
    ask(&mut again, "now through b").await.unwrap();
}

#[tokio::test]
async fn whoever_does_not_read_holds_up_only_the_one_who_writes_to_him() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let _agent = tenant.agent("a", &[], near.port);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let (endless, _endless) = target(move |mut socket| {
        let counted = counted.clone();
        async move {
            let chunk = vec![1; 64 << 10];
            while let Ok(written) = socket.write(&chunk).await {
                counted.fetch_add(written, Ordering::Relaxed);
            }
        }
    })
    .await;
    let (address, _echo) = echo().await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(opened(&near.socket, &endless.to_string()).await);
    }
    // Until nothing moves any more.
    let mut before = 0;
    loop {
        sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    // Of each stream: the window, what waits for the connection, a chunk, and the sockets' own buffers.
    let most = 8 * ((512 + 256 + 64) << 10) + 8 * (8 << 20);
    assert!((1..most).contains(&before), "{before} bytes");
    let mut stream = opened(&near.socket, &address.to_string()).await;
    timeout(DEADLINE, ask(&mut stream, "past them"))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn an_agent_that_is_stopped_lets_open_streams_run_on_and_the_next_one_gets_the_new() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let mut a = tenant.agent("a", &["127.0.0.1"], near.port);
    let (address, _echo) = echo().await;
    let mut open = opened(&near.socket, &address.to_string()).await;
    ask(&mut open, "before").await.unwrap();
    a.stop();
    // Whoever asks before the next one is there waits for it.
    let target = address.to_string();
    let next = async {
        sleep(Duration::from_millis(300)).await;
        tenant.agent("a", &["127.0.0.1"], near.port)
    };
    let (asked, _next) = tokio::join!(super::ground::open(&near.socket, &target), next);
    ask(&mut asked.unwrap(), "new").await.unwrap();
    ask(&mut open, "after").await.unwrap();
    assert!(!a.task.is_finished());
    open.shutdown().await.unwrap();
    timeout(DEADLINE, async {
        while !a.task.is_finished() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the agent ends with its last stream");
}
