//! Two ends over one HTTP/2 connection, each with a socket.

use super::*;
use http::{Method, Request, Response};
use stoker_sockets::testing::to_the_brim;
use tokio::io::{AsyncReadExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(5);

type Relayed = JoinHandle<Result<(), Error>>;

/// Whoever asks, at a Unix socket; the target, over TCP; and what becomes of the relays of the two ends.
async fn relayed() -> (UnixStream, TcpStream, [Relayed; 2]) {
    let (near, far) = duplex(1 << 16);
    let (client, mut server) =
        tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
    let (requests, connection) = client.unwrap();
    tokio::spawn(connection);
    let (asker, near_socket) = UnixStream::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (target, accepted) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let (mut far_socket, _) = accepted.unwrap();

    let request = Request::builder().method(Method::CONNECT).uri("a:1");
    let request = request.body(()).unwrap();
    let (answer, send) = requests
        .ready()
        .await
        .unwrap()
        .send_request(request, false)
        .unwrap();
    let (request, mut respond) = server.as_mut().unwrap().accept().await.unwrap().unwrap();
    let mut server = server.unwrap();
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    let back = respond.send_response(Response::new(()), false).unwrap();
    let receive = answer.await.unwrap().into_body();

    let near = tokio::spawn(async move {
        let mut socket = near_socket;
        let (mut read, mut write) = socket.split();
        relay(&mut read, &mut write, send, receive).await
    });
    let far = tokio::spawn(async move {
        let (mut read, mut write) = far_socket.split();
        relay(&mut read, &mut write, back, request.into_body()).await
    });
    (asker, target.unwrap(), [near, far])
}

async fn ended(relays: [Relayed; 2]) -> [Result<(), Error>; 2] {
    let [near, far] = relays;
    let both = async { [near.await.unwrap(), far.await.unwrap()] };
    timeout(SOON, both).await.expect("the relays end")
}

#[tokio::test]
async fn a_direction_that_ends_leaves_the_other_open() {
    let (mut asker, mut target, relays) = relayed().await;
    asker.write_all(b"question").await.unwrap();
    asker.shutdown().await.unwrap();
    let mut heard = String::new();
    target.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    target.write_all(b"answer").await.unwrap();
    drop(target);
    let mut heard = String::new();
    asker.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "answer");
    assert!(ended(relays).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_flow_of_small_pieces_arrives_in_large_ones() {
    const PIECE: usize = 16 << 10;
    let (mut asker, target, relays) = relayed().await;
    let mut target = target.into_std().unwrap();
    target.set_nonblocking(false).unwrap();
    // On time, whatever else runs: a piece that is late is followed by the next one at once.
    let telling = std::thread::spawn(move || {
        let begun = std::time::Instant::now();
        for number in 0..2000 {
            let due = Duration::from_micros(150) * number;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            std::io::Write::write_all(&mut target, &[7; PIECE]).unwrap();
        }
    });
    let (mut came, mut reads) = (0, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = asker.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        came += read;
        reads += usize::from(came > 500 * PIECE);
    }
    assert_eq!(came, 2000 * PIECE);
    let mean = 1500 * PIECE / reads;
    assert!(mean > 3 * PIECE, "pieces of {mean} bytes");
    telling.join().unwrap();
    drop(asker);
    drop(ended(relays).await);
}

#[tokio::test]
async fn who_asks_and_goes_away_is_heard_to_the_end_and_holds_nothing() {
    let (mut asker, mut target, relays) = relayed().await;
    let said = vec![7; 1 << 20];
    let telling = async {
        asker.write_all(&said).await.unwrap();
        drop(asker);
    };
    // As slow a target as can be: it begins to read when all has been said, as far as the way there holds it.
    let hearing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut heard = Vec::new();
        target.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let ((), heard) = tokio::join!(telling, hearing);
    assert!(heard == said);
    // The target says nothing and stays.
    tokio::time::pause();
    let begun = Instant::now();
    let [near, far] = relays;
    assert!(matches!(near.await.unwrap(), Err(Error::HungUp)));
    far.await.unwrap().unwrap();
    assert!(begun.elapsed() < LINGER * 2);
}

async fn said_to_the_brim() -> (UnixStream, TcpStream, [Relayed; 2], [usize; 2]) {
    let (mut asker, target, relays) = relayed().await;
    let (said, heard) = to_the_brim(&target, &mut asker).await;
    (asker, target, relays, [said, heard])
}

/// The first of what is said to somebody who is gone is answered by a reset, and a later one cannot be written.
async fn pings(asker: &mut UnixStream) {
    for _ in 0..5 {
        asker.write_all(b"ping").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_answers_and_goes_away_is_heard_to_the_end_whatever_they_were_still_told() {
    let (mut asker, target, [near, far], [said, mut heard]) = said_to_the_brim().await;
    drop(target);
    pings(&mut asker).await;
    heard += asker.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(heard, said);
    drop(asker);
    timeout(SOON, near)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    let far = timeout(SOON, far).await.expect("it ends").unwrap();
    assert!(matches!(far, Err(Error::Socket(_))), "{far:?}");
}

#[tokio::test]
async fn what_a_target_said_before_it_broke_arrives_and_is_no_end() {
    for is_spoken_to in [false, true] {
        let (mut asker, target, relays, [said, mut heard]) = said_to_the_brim().await;
        target.set_zero_linger().unwrap();
        drop(target);
        if is_spoken_to {
            pings(&mut asker).await;
        }
        let hearing = async {
            heard += asker.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(heard, said);
        };
        let ([near, far], ()) = tokio::join!(ended(relays), hearing);
        assert!(matches!(near, Err(Error::Cut)), "{near:?}");
        assert!(matches!(far, Err(Error::Socket(_))), "{far:?}");
    }
}

#[tokio::test]
async fn an_upload_to_a_target_that_breaks_ends_at_once() {
    let (asker, target, relays) = relayed().await;
    while timeout(Duration::from_millis(100), asker.writable())
        .await
        .is_ok()
    {
        let _ = asker.try_write(&[7; 1 << 10]);
    }
    target.set_zero_linger().unwrap();
    drop(target);
    let [near, far] = ended(relays).await;
    assert!(matches!(near, Err(Error::Cut)), "{near:?}");
    assert!(matches!(far, Err(Error::Socket(_))), "{far:?}");
}

#[tokio::test]
async fn who_asks_on_and_hears_nobody_is_cut_after_a_while() {
    let (mut asker, mut target, [near, far]) = relayed().await;
    target.write_all(b"no").await.unwrap();
    target.shutdown().await.unwrap();
    let mut heard = String::new();
    asker.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "no");
    drop(target);
    let begun = Instant::now();
    tokio::time::pause();
    let mut number = 0;
    while asker.write_all(b"ping").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        number += 1;
        assert!(number < 40, "{:?}", begun.elapsed());
    }
    let far = far.await.unwrap();
    assert!(matches!(far, Err(Error::Socket(_))), "{far:?}");
    // It had heard all of the answer.
    near.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_target_that_breaks_is_no_end() {
    let (mut asker, target, relays) = relayed().await;
    target.set_zero_linger().unwrap();
    drop(target);
    let _ = asker.read(&mut [0]).await;
    assert!(ended(relays).await.iter().all(Result::is_err));
}

#[tokio::test]
async fn half_closed_and_silent_is_broken_after_a_while() {
    let (mut asker, mut target, relays) = relayed().await;
    asker.shutdown().await.unwrap();
    assert_eq!(target.read(&mut [0]).await.unwrap(), 0);
    tokio::time::pause();
    let begun = Instant::now();
    let [near, far] = relays;
    let (near, far) = (near.await.unwrap(), far.await.unwrap());
    assert!(near.is_err() || far.is_err());
    assert!(begun.elapsed() >= HALF_CLOSED && begun.elapsed() <= 3 * HALF_CLOSED);
}
