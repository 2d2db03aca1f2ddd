use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::server::{Connection, SendResponse};
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

const KEEPING: Keeping = Keeping {
    windows: (64 * 1024, 256 * 1024),
    ping_interval: Duration::from_millis(100),
    ping_timeout: Duration::from_millis(100),
};

struct Plain {
    address: SocketAddr,
    dialled: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
}

impl Dial for Plain {
    type Io = Counted;

    async fn dial(&self) -> Result<Counted, BoxError> {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        Ok(Counted {
            stream: TcpStream::connect(self.address).await?,
            written: Arc::clone(&self.written),
        })
    }
}

/// A stream whose writes are counted.
struct Counted {
    stream: TcpStream,
    written: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.written.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A wire to a listener, and how often it was dialled.
async fn wire() -> (Wire<Plain>, TcpListener, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let dialled = Arc::new(AtomicUsize::new(0));
    let plain = Plain {
        address: listener.local_addr().unwrap(),
        dialled: Arc::clone(&dialled),
        written: Arc::default(),
    };
    (Wire::new(plain, KEEPING), listener, dialled)
}

async fn accepted(listener: &TcpListener) -> Connection<TcpStream, Bytes> {
    let (stream, _) = listener.accept().await.unwrap();
    h2::server::handshake(stream).await.unwrap()
}

/// Sends back what a request says, twice.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut said = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        said.extend_from_slice(&part);
    }
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(said.clone().into(), false).unwrap();
    stream.send_data(said.into(), true).unwrap();
}

async fn serve(mut connection: Connection<TcpStream, Bytes>) {
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(echo(request, respond));
    }
}

async fn ask(wire: &Wire<Plain>, body: Vec<u8>) -> Result<Bytes, BoxError> {
    let request = Request::post("http://peer/").body(Body::from(body))?;
    let answer = wire.open().await?.send(request).await?;
    Ok(answer.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn requests_share_a_connection_and_get_another_after_it_broke() {
    let (wire, listener, dialled) = wire().await;
    let first = tokio::spawn(async move {
        let served = tokio::spawn(serve(accepted(&listener).await));
        (served, listener)
    });
    // More than a window, so that what was read must be acknowledged.
    let large = vec![7; 300 * 1024];
    let asked = (0..20).map(|_| ask(&wire, large.clone()));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap().len(), 2 * large.len());
    }
    assert_eq!(dialled.load(Ordering::Relaxed), 1);

    let (served, listener) = first.await.unwrap();
    served.abort();
    let second = tokio::spawn(async move { serve(accepted(&listener).await).await });
    // One that was on its way may fail; nothing is sent twice.
    let begun = Instant::now();
    while ask(&wire, b"x".to_vec()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(dialled.load(Ordering::Relaxed), 2);
    second.abort();
}

#[tokio::test]
async fn requests_made_together_leave_together() {
    let (wire, listener, _) = wire().await;
    let peer = tokio::spawn(async move { serve(accepted(&listener).await).await });
    ask(&wire, b"x".to_vec()).await.unwrap();
    let before = wire.dial.written.load(Ordering::Relaxed);
    let asked = (0..20).map(|_| ask(&wire, vec![7; 2000]));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap().len(), 4000);
    }
    let written = wire.dial.written.load(Ordering::Relaxed) - before;
    assert!(written < 20, "{written}");
    peer.abort();
}

#[tokio::test]
async fn a_peer_that_falls_silent_breaks_what_waits_for_it() {
    let (wire, listener, _) = wire().await;
    let peer = tokio::spawn(async move {
        let mut connection = accepted(&listener).await;
        // Takes one request, and never moves again.
        let taken = connection.accept().await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop((taken, connection));
    });
    let begun = Instant::now();
    assert!(ask(&wire, Vec::new()).await.is_err());
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    peer.abort();
}

#[tokio::test]
async fn a_peer_that_goes_away_is_not_asked_again_on_that_connection() {
    let (wire, listener, dialled) = wire().await;
    let peer = tokio::spawn(async move {
        let mut connection = accepted(&listener).await;
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        connection.graceful_shutdown();
        tokio::spawn(echo(request, respond));
        serve(connection).await;
        serve(accepted(&listener).await).await;
    });
    assert_eq!(&ask(&wire, b"a".to_vec()).await.unwrap()[..], b"aa");
    let begun = Instant::now();
    while ask(&wire, b"b".to_vec()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(dialled.load(Ordering::Relaxed), 2);
    peer.abort();
}
