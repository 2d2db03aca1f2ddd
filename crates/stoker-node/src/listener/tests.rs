use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

const DRAIN: Duration = Duration::from_secs(2);
const NAME: &str = "0123.clusters.example.com";

/// A server that repeats what it is sent, and ends when its client does.
struct Echo {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = seen.clone();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = socket.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                open.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

/// A listener that runs.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(servers: &[SocketAddr], name: Option<&str>) -> Self {
        Self::start_at(free(), servers, name)
    }

    fn start_at(address: SocketAddr, servers: &[SocketAddr], name: Option<&str>) -> Self {
        let servers = servers.iter().map(|server| server.to_string().parse());
        let listener = Listener::open(Config {
            listen: vec![address],
            servers: servers.collect::<Result<_, _>>().unwrap(),
            name: name.map(str::to_owned),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = listener.unwrap();
        let task = tokio::spawn(listener.run(async {
            drop(stopped.await);
            DRAIN
        }));
        Self {
            address,
            stop: Some(stop),
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn free() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// What comes back.
async fn said(stream: &mut TcpStream, text: &[u8], prefix: usize) -> io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    let mut heard = vec![0; prefix + text.len()];
    timeout(Duration::from_secs(5), stream.read_exact(&mut heard)).await??;
    Ok(heard)
}

#[tokio::test]
async fn the_name_goes_first_and_each_end_of_a_stream_is_passed_on() {
    let echo = Echo::start().await;
    let listener = Running::start(&[echo.address], Some(NAME));
    let mut stream = listener.connect().await;
    let header = header::naming(NAME);
    let heard = said(&mut stream, b"hello", header.len()).await.unwrap();
    assert_eq!(heard, [&header[..], b"hello"].concat());
    let long = vec![7; 3 << 20];
    let (mut read, mut write) = stream.split();
    let send = async {
        write.write_all(&long).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let ((), got) = tokio::join!(send, read.read_to_end(&mut heard));
    assert_eq!((got.unwrap(), heard == long), (long.len(), true));
}

#[tokio::test]
async fn all_servers_get_their_share() {
    let (one, two) = tokio::join!(Echo::start(), Echo::start());
    let listener = Running::start(&[one.address, two.address], None);
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = listener.connect().await;
        said(&mut stream, b"x", 0).await.unwrap();
        open.push(stream);
    }
    assert_eq!((one.seen(), two.seen()), (5, 5));
}

/// The kernel answers nobody: the queue of a server that hangs is full.
fn silent() -> (Socket, Vec<std::net::TcpStream>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let short = Duration::from_millis(100);
    let mut queue = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, short) {
        queue.push(stream);
    }
    (socket, queue, address)
}

#[tokio::test]
async fn one_that_refuses_and_one_that_is_silent_cost_less_than_a_second_once() {
    let good = Echo::start().await;
    let (_socket, _queue, silent) = silent();
    let listener = Running::start(&[free(), silent, good.address], None);
    let mut slow = 0;
    for _ in 0..9 {
        let begun = Instant::now();
        let mut stream = listener.connect().await;
        said(&mut stream, b"x", 0).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        slow += usize::from(took > Duration::from_millis(200));
    }
    assert_eq!(good.seen(), 9);
    assert!(slow <= 1, "{slow}");
}

#[tokio::test]
async fn a_client_waits_until_a_server_is_there() {
    let address = free();
    let listener = Running::start(&[address], None);
    let mut stream = listener.connect().await;
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let socket = TcpListener::bind(address).await.unwrap();
        let (mut stream, _) = socket.accept().await.unwrap();
        stream.write_all(b"x").await.unwrap();
    });
    assert_eq!(said(&mut stream, b"", 1).await.unwrap(), b"x");
    later.await.unwrap();
}

#[tokio::test]
async fn a_stream_outlives_its_listener_and_the_next_takes_over() {
    let echo = Echo::start().await;
    let mut first = Running::start(&[echo.address], None);
    let mut open = first.connect().await;
    said(&mut open, b"x", 0).await.unwrap();
    let second = Running::start_at(first.address, &[echo.address], None);
    first.stop.take();
    for _ in 0..20 {
        let mut stream = second.connect().await;
        said(&mut stream, b"x", 0).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    said(&mut open, b"still here", 0).await.unwrap();
    assert!(!first.task.is_finished());
    drop(open);
    timeout(Duration::from_secs(1), first.task)
        .await
        .unwrap()
        .unwrap();
    echo.task.abort();
}

/// Only where this process may make a network of its own.
#[test]
fn the_node_is_given_an_address_once() {
    let own_network = || {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        for address in ["192.0.0.64:6443", "[fd53:746f:6b72::1]:6443"] {
            let address: SocketAddr = address.parse().unwrap();
            let bind = || std::net::TcpListener::bind(address);
            assert_eq!(bind().unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
            node_address::ensure(address.ip()).unwrap();
            node_address::ensure(address.ip()).unwrap();
            let socket = bind().unwrap();
            // The kernel takes a moment with addresses of IPv6.
            let begun = Instant::now();
            while let Err(error) = std::net::TcpStream::connect(address) {
                assert!(
                    begun.elapsed() < Duration::from_secs(2),
                    "{address}: {error}"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(socket);
        }
    };
    std::thread::spawn(own_network).join().unwrap();
}
