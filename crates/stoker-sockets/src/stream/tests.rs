use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::testing::to_the_brim;

const SILENCE: Silence = Silence {
    open: Some(Duration::from_hours(4)),
    half_closed: HALF_CLOSED,
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
    server: TcpStream,
    /// Bytes that went to the server, and to the client.
    moved: Arc<[AtomicU64; 2]>,
    task: JoinHandle<io::Result<()>>,
}

async fn joined(silence: Silence) -> Joined {
    let (client, mut near) = pair().await;
    let (mut far, server) = pair().await;
    let moved = Arc::<[AtomicU64; 2]>::default();
    let counted = moved.clone();
    let task = tokio::spawn(async move {
        let count = |way, bytes| {
            counted[usize::from(way == Way::ToClient)].fetch_add(bytes, Ordering::Relaxed);
        };
        join(&mut near, &mut far, silence, count).await
    });
    Joined {
        client,
        server,
        moved,
        task,
    }
}

#[tokio::test]
async fn each_end_is_passed_on_and_the_other_direction_goes_on() {
    let mut joined = joined(SILENCE).await;
    joined.client.write_all(b"question").await.unwrap();
    joined.client.shutdown().await.unwrap();
    let mut heard = String::new();
    joined.server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    joined.server.write_all(b"late answer").await.unwrap();
    drop(joined.server);
    heard.clear();
    joined.client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "late answer");
    joined.task.await.unwrap().unwrap();
    let moved = |at: usize| joined.moved[at].load(Ordering::Relaxed);
    assert_eq!((moved(0), moved(1)), (8, 11));
}

#[tokio::test]
async fn a_receiver_that_does_not_keep_up_loses_nothing() {
    let joined = joined(SILENCE).await;
    let (mut client, mut server) = (joined.client, joined.server);
    let sent: Vec<u8> = (0..60_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let expected = sent.clone();
    let sending = tokio::spawn(async move {
        server.write_all(&sent).await.unwrap();
    });
    // Every buffer on the way is full by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sending.is_finished());
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert!(heard == expected);
}

/// The server, which knows that the client has broken, and what becomes of them.
async fn of_a_broken_client() -> (TcpStream, JoinHandle<io::Result<()>>) {
    let mut joined = joined(SILENCE).await;
    joined.client.set_zero_linger().unwrap();
    drop(joined.client);
    assert_eq!(joined.server.read(&mut [0]).await.unwrap_or(0), 0);
    (joined.server, joined.task)
}

#[tokio::test]
async fn a_broken_connection_ends_the_other() {
    let (server, task) = of_a_broken_client().await;
    drop(server);
    task.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn of_one_that_broke_the_other_is_not_waited_for_long() {
    let (_server, task) = of_a_broken_client().await;
    tokio::time::pause();
    let begun = Instant::now();
    task.await.unwrap().unwrap_err();
    assert!(begun.elapsed() < GONE * 2);
}

async fn said_to_the_brim() -> (Joined, usize, usize) {
    let mut joined = joined(SILENCE).await;
    let (said, heard) = to_the_brim(&joined.server, &mut joined.client).await;
    (joined, said, heard)
}

#[tokio::test]
async fn who_answers_and_goes_away_is_heard_to_the_end_whatever_they_were_still_told() {
    let (mut joined, said, mut heard) = said_to_the_brim().await;
    drop(joined.server);
    // The first is answered by a reset, and the second one cannot be written.
    for _ in 0..5 {
        joined.client.write_all(b"ping").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    heard += joined.client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(heard, said);
    drop(joined.client);
    joined.task.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn who_talks_on_without_end_to_one_that_is_gone_is_reset() {
    let mut joined = joined(SILENCE).await;
    drop(joined.server);
    let talk = async { while joined.client.write_all(&[0; 1 << 12]).await.is_ok() {} };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, talk).await.unwrap();
    joined.task.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn what_was_said_before_a_connection_broke_arrives() {
    let (mut joined, said, mut heard) = said_to_the_brim().await;
    joined.server.set_zero_linger().unwrap();
    drop(joined.server);
    // Unread in the socket to the client, if that were closed now.
    joined.client.write_all(b"ping").await.unwrap();
    heard += joined.client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(heard, said);
    drop(joined.client);
    joined.task.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_something_now_and_then_is_not_cut() {
    let mut joined = joined(SILENCE).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_hours(3)).await;
        joined.server.write_all(b"x").await.unwrap();
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
    assert_eq!(joined.server.read(&mut [0]).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_mins(6)).await;
    joined.task.await.unwrap().unwrap_err();
}
