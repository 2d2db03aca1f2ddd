//! Two network namespaces with a cable between, and nothing else: what only one end reaches, and how fast the way is.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// The far namespace, with a thread in it. Both namespaces end with what runs in them.
#[derive(Debug)]
pub struct Cable {
    jobs: Sender<Job>,
}

impl Cable {
    /// Takes this thread into a new namespace that has the address `here` (as `10.0.0.1/24`), and makes
    /// another that has `there`. Threads that are there already stay where they are: call it first.
    ///
    /// # Errors
    /// Without root.
    pub fn plug(here: &str, there: &str) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace (are you root?)")?;
        let (jobs, work) = channel::<Job>();
        thread::spawn(move || work.into_iter().for_each(|job| job()));
        let cable = Self { jobs };
        let thread = cable.there(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok::<_, nix::Error>(nix::unistd::gettid())
        })?;
        let thread = thread.context("a second network namespace")?;
        ip(&format!(
            "link add cable type veth peer name cable netns {thread}"
        ))?;
        up(here)?;
        let there = there.to_owned();
        cable.there(move || up(&there))??;
        Ok(cable)
    }

    /// Does something at the far end: processes and sockets that it makes are there.
    ///
    /// # Errors
    /// When something before it has panicked.
    pub fn there<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (done, is_done) = channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs.send(job).ok().context("the far end is gone")?;
        is_done.recv().context("the far end is gone")
    }

    /// Limits both directions to 1 Gbit/s.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn limit_to_a_gigabit(&self) -> Result<()> {
        self.on_both(|| {
            run(
                "tc",
                "qdisc add dev cable root tbf rate 1gbit burst 256k latency 20ms",
            )
        })
    }

    /// Lifts the limit.
    ///
    /// # Errors
    /// When there is none.
    pub fn unlimited(&self) -> Result<()> {
        self.on_both(|| run("tc", "qdisc del dev cable root"))
    }

    fn on_both(&self, change: fn() -> Result<()>) -> Result<()> {
        change()?;
        self.there(change)?
    }
}

fn up(address: &str) -> Result<()> {
    ip("link set lo up")?;
    ip(&format!("addr add {address} dev cable"))?;
    ip("link set cable up")
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> Result<()> {
    let done = Command::new(program).args(arguments.split(' ')).status()?;
    ensure!(done.success(), "{program} {arguments} failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_listens_at_the_far_end_is_reached_over_the_cable_alone() {
        thread::spawn(|| {
            let cable = Cable::plug("10.66.0.1/24", "10.66.0.2/24").unwrap();
            let listen = |address| move || TcpListener::bind(address).unwrap();
            let _reached = cable.there(listen("10.66.0.2:80")).unwrap();
            let _hidden = cable.there(listen("127.0.0.1:80")).unwrap();
            assert!(TcpStream::connect("10.66.0.2:80").is_ok());
            assert!(TcpStream::connect("127.0.0.1:80").is_err());
        })
        .join()
        .unwrap();
    }
}
