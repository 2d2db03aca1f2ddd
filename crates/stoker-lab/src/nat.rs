//! A worker behind a router that hides it, as an office or a home has one: it reaches everybody, and nobody reaches it.
//!
//! ```text
//!  worker-<n> 198.18.<n>.2 ── 198.18.<n>.1 pool's host, as the router ── the lab's bridge
//!                             what comes from there is the router's own; nothing begins towards it
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::command::{program, run, run_with_input};
use crate::host::Host;
use crate::lab::Lab;
use crate::pool;

impl Lab {
    /// Lays the cable of a worker that has not joined yet to a router instead of the bridge, and returns it with its new
    /// address. Laid anew where it was laid already, or half.
    ///
    /// # Errors
    /// When a host does not run or a command fails.
    pub async fn put_behind_nat(&self, worker: &Host) -> Result<Host> {
        let router = self.host(pool::HOST)?;
        let number = number(worker.address());
        let (inside, outside) = addresses(number);
        let cable = format!("nat{number}");
        let (router_pid, worker_pid) = (pid(&router)?, pid(worker)?);
        // Not there after an interruption. Its other end goes with it.
        let _ = worker.run(words("ip link delete eth0")).await;
        let lay = format!(
            "link add {cable} netns {router_pid} type veth peer name eth0 netns {worker_pid}"
        );
        run(&mut program("ip", words(&lay))).await?;
        for command in [
            format!("ip address add {outside}/24 dev {cable}"),
            format!("ip link set {cable} up"),
        ] {
            router.run(words(&command)).await?;
        }
        for command in [
            format!("ip address add {inside}/24 dev eth0"),
            "ip link set eth0 up".to_owned(),
            format!("ip route replace default via {outside}"),
        ] {
            worker.run(words(&command)).await?;
        }
        self.close_router(worker).await?;
        worker.write(
            "/etc/hosts",
            &format!("127.0.0.1 localhost\n{inside} {}\n", worker.name()),
        )?;
        std::fs::write(worker.state().join("address"), inside.to_string())
            .context("noting the worker's new address")?;
        self.host(worker.name())
    }

    /// Has the router of a worker let nobody in, as it does from the start.
    ///
    /// # Errors
    /// When the router does not run or the command fails.
    pub async fn close_router(&self, worker: &Host) -> Result<()> {
        let rules = rules(number(worker.address()));
        let mut nft = self.host(pool::HOST)?.command(["nft", "-f", "-"])?;
        run_with_input(&mut nft, rules.as_bytes()).await.map(drop)
    }

    /// Has the router of a worker let in whoever finds the way to it.
    ///
    /// # Errors
    /// When the router does not run or the command fails.
    pub async fn open_router(&self, worker: &Host) -> Result<()> {
        let flush = format!(
            "nft flush chain ip stoker_lab_nat{} forward",
            number(worker.address())
        );
        let router = self.host(pool::HOST)?;
        router.run(words(&flush)).await.map(drop)
    }
}

/// Of the worker with this address, on the bridge or behind its router.
fn number(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [198, 18, number, _] | [_, _, _, number] => number,
    }
}

/// The worker's address behind the router, and the router's there. The network is one that nobody uses (RFC 2544).
fn addresses(number: u8) -> (Ipv4Addr, Ipv4Addr) {
    (
        Ipv4Addr::new(198, 18, number, 2),
        Ipv4Addr::new(198, 18, number, 1),
    )
}

/// What the router does for one worker, in a table of its own.
fn rules(number: u8) -> String {
    let (inside, _) = addresses(number);
    let table = format!("stoker_lab_nat{number}");
    format!(
        "add table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n\
         \tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat;\n\
         \t\tip saddr {inside} oifname \"eth0\" masquerade\n\t}}\n\
         \tchain forward {{\n\t\ttype filter hook forward priority filter;\n\
         \t\tct state established,related accept\n\t\toifname \"nat{number}\" drop\n\t}}\n}}\n"
    )
}

fn pid(host: &Host) -> Result<i32> {
    let process = host
        .process()
        .filter(crate::process::Process::is_running)
        .with_context(|| format!("the host `{}` does not run", host.name()))?;
    Ok(process.pid)
}

fn words(line: &str) -> std::str::Split<'_, char> {
    line.split(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_keeps_its_number_behind_its_router() {
        let on_the_bridge = Ipv4Addr::new(172, 30, 51, 12);
        assert_eq!(number(on_the_bridge), 12);
        assert_eq!(number(addresses(12).0), 12);
    }
}
