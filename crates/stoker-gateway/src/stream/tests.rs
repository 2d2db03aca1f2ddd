use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const SILENCE: Silence = Silence {
    open: Some(Duration::from_hours(4)),
    half_closed: Duration::from_mins(5),
};

/// Two connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialed, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialed.unwrap(), accepted.unwrap().0)
}

struct Joined {
    client: TcpStream,
    backend: TcpStream,
    tenant: Arc<Tenant>,
    task: JoinHandle<io::Result<()>>,
}

async fn joined(silence: Silence) -> Joined {
    let (client, mut near) = pair().await;
    let (mut far, backend) = pair().await;
    let tenant = Arc::new(Tenant::new("a/one"));
    let counted = tenant.clone();
    let task = tokio::spawn(async move { join(&mut near, &mut far, &counted, silence).await });
    Joined {
        client,
        backend,
        tenant,
        task,
    }
}

#[tokio::test]
async fn each_end_is_passed_on_and_the_other_direction_goes_on() {
    let mut joined = joined(SILENCE).await;
    joined.client.write_all(b"question").await.unwrap();
    joined.client.shutdown().await.unwrap();
    let mut heard = String::new();
    joined.backend.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    joined.backend.write_all(b"late answer").await.unwrap();
    drop(joined.backend);
    heard.clear();
    joined.client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "late answer");
    joined.task.await.unwrap().unwrap();
    assert_eq!(
        (joined.tenant.received.get(), joined.tenant.sent.get()),
        (8, 11)
    );
}

#[tokio::test]
async fn a_receiver_that_does_not_keep_up_loses_nothing() {
    let joined = joined(SILENCE).await;
    let (mut client, mut backend) = (joined.client, joined.backend);
    let sent: Vec<u8> = (0..60_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        backend.write_all(&sent).await.unwrap();
    });
    // Every buffer on the way is full by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sending.is_finished());
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert!(heard == expected);
}

#[tokio::test]
async fn a_broken_connection_ends_the_other() {
    let mut joined = joined(SILENCE).await;
    socket2::SockRef::from(&joined.client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(joined.client);
    assert_eq!(joined.backend.read(&mut [0]).await.unwrap_or(0), 0);
    joined.task.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_something_now_and_then_is_not_cut() {
    let mut joined = joined(SILENCE).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_hours(3)).await;
        joined.backend.write_all(b"x").await.unwrap();
        joined.client.read_exact(&mut [0]).await.unwrap();
    }
    assert!(!joined.task.is_finished());
    tokio::time::sleep(Duration::from_hours(5)).await;
    let ended = joined.task.await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_one_end_has_closed_is_cut_sooner() {
    let mut joined = joined(SILENCE).await;
    joined.client.shutdown().await.unwrap();
    assert_eq!(joined.backend.read(&mut [0]).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_mins(6)).await;
    joined.task.await.unwrap().unwrap_err();
}
