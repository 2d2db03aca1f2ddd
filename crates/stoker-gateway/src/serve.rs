//! The threads that serve: each with listeners, connections and timers of its own, so that what one connection waits for
//! wakes no other thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::gate::Gate;
use crate::sockets::listen;

/// When no connection can be taken, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A timer that is earlier than all others has tokio wake its own thread: a write and a wait more for each of the four of a
/// connection, of 46 system calls. With one that is always earlier it does not.
const TICK: Duration = Duration::from_millis(500);

/// What the threads are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Take connections.
    Serving,
    /// Take no more; those that are open live on.
    Draining,
}

/// Starts a thread that serves at `addresses` until the sender of `phase` is gone, which cuts its connections.
///
/// # Errors
/// It cannot be started, or an address cannot be listened on.
pub fn start(
    gate: Arc<Gate>,
    addresses: &[SocketAddr],
    phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listeners = {
        let _context = runtime.enter();
        let bound = addresses.iter().map(|address| listen(*address));
        bound.collect::<io::Result<Vec<_>>>()?
    };
    let thread = std::thread::Builder::new().name("gateway".to_owned());
    thread.spawn(move || runtime.block_on(serve(gate, listeners, phase)))?;
    Ok(())
}

async fn serve(gate: Arc<Gate>, listeners: Vec<TcpListener>, mut phase: watch::Receiver<Phase>) {
    let mut accepting = JoinSet::new();
    accepting.spawn(tick());
    for listener in listeners {
        accepting.spawn(accept(gate.clone(), listener));
    }
    let draining = phase
        .wait_for(|phase| *phase == Phase::Draining)
        .await
        .is_ok();
    // Closes the listeners.
    accepting.shutdown().await;
    if draining {
        while phase.changed().await.is_ok() {}
    }
}

async fn tick() {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
    }
}

async fn accept(gate: Arc<Gate>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let gate = gate.clone();
                tokio::spawn(async move { gate.serve(stream, peer).await });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
