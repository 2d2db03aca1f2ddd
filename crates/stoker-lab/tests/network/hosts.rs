//! Private network namespaces that live as long as the values that hold them.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
pub(crate) struct Host {
    namespace: File,
}

impl Host {
    pub(crate) fn new() -> Self {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("new network namespace: run the tests as root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let host = Self {
            namespace: namespace.join().unwrap(),
        };
        host.ip("link set lo up");
        host
    }

    /// Runs `work` on a thread inside the namespace; sockets and processes it makes stay there.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// A path that other processes of this user can open.
    pub(crate) fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.namespace.as_raw_fd()
        )
    }

    pub(crate) fn ip(&self, arguments: &str) {
        let status = self.enter(|| {
            Command::new("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap()
        });
        assert!(status.success(), "ip {arguments}: {status}");
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Feeds a script to nft and returns what it complains about.
    pub(crate) fn nft(&self, arguments: &[&str], script: &str) -> Result<(), String> {
        self.enter(|| {
            let mut child = Command::new("nft")
                .args(arguments)
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                return Ok(());
            }
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        })
    }

    /// Accepts TCP connections at `address` until the test ends.
    pub(crate) fn listen(&self, address: &str) {
        let listener = self.enter(|| TcpListener::bind(address)).unwrap();
        std::thread::spawn(move || {
            let accepted: Vec<_> = listener.incoming().flatten().collect();
            drop(accepted);
        });
    }

    /// Returns UDP packets at `address` to their senders until the test ends.
    pub(crate) fn echo(&self, address: &str) {
        let socket = self.enter(|| UdpSocket::bind(address)).unwrap();
        std::thread::spawn(move || {
            let mut packet = [0; 16];
            while let Ok((size, sender)) = socket.recv_from(&mut packet) {
                let _ = socket.send_to(&packet[..size], sender);
            }
        });
    }

    /// Opens a connection; `None` when nobody answers in time or somebody refuses.
    pub(crate) fn connect(&self, address: &str) -> Option<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        self.enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(400)))
            .ok()
    }

    pub(crate) fn reaches(&self, address: &str) -> bool {
        self.connect(address).is_some()
    }

    pub(crate) fn reaches_udp(&self, address: &str) -> bool {
        let wildcard = if address.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = self.enter(|| UdpSocket::bind(wildcard)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(400)))
            .unwrap();
        socket.send_to(b"ping", address).is_ok() && socket.recv(&mut [0; 16]).is_ok()
    }
}
