//! Worker hosts: machines with containerd and a kubelet that waits for an unmodified `kubeadm join`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::addresses::WORKERS;
use crate::command::run;
use crate::containerd::{self, SOCKET};
use crate::host::Host;
use crate::host::supervisor::Program;
use crate::images;
use crate::lab::Lab;
use crate::node;
use crate::pod_network;
use crate::versions::{CONTAINERD, KubernetesVersion};

/// What systemd does with kubeadm's drop-in: flags from kubeadm's file, everything else from its files.
/// kubeadm writes the flags a moment after the configuration that the kubelet is started by.
const KUBELET: &str = r#"
for try in 1 2 3 4 5 6 7 8 9 10; do [ -f /var/lib/kubelet/kubeadm-flags.env ] && break; sleep 0.1; done
. /var/lib/kubelet/kubeadm-flags.env
exec kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
  --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml \
  --node-ip="$NODE_IP" $KUBELET_KUBEADM_ARGS
"#;
/// Where tenants' pods and Services are by default, and what IPv6 has for them; what a worker knows better has a longer
/// prefix.
const UNKNOWN_NETWORKS: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];
/// Patches for kubeadm: what this machine needs and no tenant should have to know.
const PATCHES: &str = "/etc/stoker-lab/patches";

/// What a worker was joined to.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Membership {
    kubeconfig: PathBuf,
    /// The worker's addresses in the order of the tenant's IP families, as `--node-ip` has them.
    node_ip: String,
    /// Networks of its pods, one per family.
    pods: Vec<String>,
}

impl Lab {
    /// Makes the host `worker-<number>` with the kubelet and images of a Kubernetes version, and leaves it
    /// waiting for [`Lab::join`]. A worker that is there already is left alone.
    ///
    /// # Errors
    /// When the number is not 1 to 80, the lab is not up, or the host does not start.
    pub async fn add_worker(&self, number: u8, version: KubernetesVersion) -> Result<Host> {
        self.make_worker(number, version, false).await
    }

    /// The same with systemd, and with no kubelet's unit: that is for whoever joins it.
    ///
    /// # Errors
    /// As [`Lab::add_worker`], or when the machine has no systemd.
    pub async fn add_worker_with_systemd(
        &self,
        number: u8,
        version: KubernetesVersion,
    ) -> Result<Host> {
        self.make_worker(number, version, true).await
    }

    async fn make_worker(
        &self,
        number: u8,
        version: KubernetesVersion,
        systemd: bool,
    ) -> Result<Host> {
        ensure!(
            (1..=WORKERS).contains(&number),
            "workers are numbered 1 to {WORKERS}"
        );
        ensure!(self.is_up(), "the lab `{}` is not up", self.paths().lab());
        let upstream = self.upstream();
        let binaries = vec![
            upstream.kubernetes(version).await?,
            upstream.containerd(CONTAINERD).await?,
        ];
        let images = images::node(upstream, version).await?;
        let name = format!("worker-{number}");
        let address = self.addresses().worker(number);
        let host = if systemd {
            self.start_host_with_systemd(&name, address, binaries).await
        } else {
            self.start_host(&name, address, binaries).await
        }?;
        // A Service address that kube-proxy has not programmed yet is refused at once, as a data centre's router
        // does, instead of being forwarded into nothing: CoreDNS would wait 30 s for its first connection.
        let families = 1 + usize::from(host.ipv6().is_some());
        for unknown in UNKNOWN_NETWORKS.iter().take(families) {
            host.run(["ip", "route", "replace", "unreachable", unknown])
                .await?;
        }
        containerd::start(&host, self.machine(), version).await?;
        images::import(&host, &images).await?;
        self.give_node_image(&host).await?;
        let patch = json!({
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.control_group(&name)),
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
        });
        host.write(
            &format!("{PATCHES}/kubeletconfiguration+merge.json"),
            &patch.to_string(),
        )?;
        let joined = membership(&host);
        let node_ip = joined.as_ref().map(|member| member.node_ip.clone());
        let node_ip = node_ip.unwrap_or_else(|| host.address().to_string());
        keep_kubelet(&host, node_ip)?;
        // Routes end with the host's processes, what it was joined to does not.
        if let Some(member) = joined {
            self.connect_pods(&member.kubeconfig).await?;
        }
        Ok(host)
    }

    /// Joins a worker to a tenant: a token by `kubeadm token create` with the tenant's kubeconfig, then an
    /// unmodified `kubeadm join` on the worker; waits until its node is ready.
    ///
    /// # Errors
    /// What kubeadm says, or why the node is not ready within three minutes.
    pub async fn join(&self, worker: &Host, kubeconfig: &Path) -> Result<()> {
        let tenant = self.expect(worker, kubeconfig).await?;
        let mut token = self.tenant_program("kubeadm").await?;
        token.args(["token", "create", "--print-join-command", "--kubeconfig"]);
        let said = run(token.arg(kubeconfig))
            .await
            .context("making a token for a worker")?;
        let line = said.lines().find(|line| line.starts_with("kubeadm join "));
        let line = line.with_context(|| format!("kubeadm printed no join command but: {said}"))?;
        let mut command: Vec<&str> = line.split_whitespace().collect();
        command.extend([
            "--node-name",
            worker.name(),
            "--patches",
            PATCHES,
            "--cri-socket",
            SOCKET,
        ]);
        // It looks for kernel settings and limits of cgroup v2.
        command.push("--ignore-preflight-errors=SystemVerification");
        let command = command.into_iter().map(str::to_owned).collect();
        self.enter(worker, kubeconfig, command, tenant).await
    }

    /// Joins a worker to a tenant by a `JoinToken`, with the program `stoker-node` of this machine and the words that people
    /// would add to `join`, the token first; waits until its node is ready.
    ///
    /// # Errors
    /// What `stoker-node` says, or why the node is not ready within three minutes.
    pub async fn join_by_token(
        &self,
        worker: &Host,
        kubeconfig: &Path,
        stoker_node: &Path,
        words: &[&str],
    ) -> Result<()> {
        let tenant = self.expect(worker, kubeconfig).await?;
        let program = stoker_node.display().to_string();
        let patch = format!("{PATCHES}/kubeletconfiguration+merge.json");
        let mut command = vec![&*program, "join", "--kubelet-config", &patch];
        command.extend(words);
        if worker.has_systemd() {
            command.extend(["--node-ip", &tenant.1]);
        }
        let command = command.into_iter().map(str::to_owned).collect();
        self.enter(worker, kubeconfig, command, tenant).await
    }

    /// Gives a worker's kubelet the addresses that it has in the tenant; a client for the tenant, and these.
    async fn expect(&self, worker: &Host, kubeconfig: &Path) -> Result<(Client, String)> {
        let text = std::fs::read_to_string(kubeconfig).context("reading the kubeconfig")?;
        let client = self.tenant_client(&text).await?;
        let node_ip = node_ip(&client, worker).await?;
        keep_kubelet(worker, node_ip.clone())?;
        Ok((client, node_ip))
    }

    /// Has a worker join by `command`, then gives it what it needs of the lab: its pods' network, and routes to those of the
    /// others; waits until its node is ready.
    async fn enter(
        &self,
        worker: &Host,
        kubeconfig: &Path,
        command: Vec<String>,
        (client, node_ip): (Client, String),
    ) -> Result<()> {
        worker.run(command).await.with_context(|| {
            format!(
                "joining {}; its kubelet's log is {}",
                worker.name(),
                worker.log("kubelet").display()
            )
        })?;
        let pods = pod_networks_of(&client, worker).await?;
        pod_network::configure(worker, &pods, true)?;
        let membership = Membership {
            kubeconfig: kubeconfig.to_owned(),
            node_ip,
            pods,
        };
        std::fs::write(membership_file(worker), serde_json::to_vec(&membership)?)
            .context("noting what the worker was joined to")?;
        self.connect_pods(kubeconfig).await?;
        node::wait_ready(&client, worker, Duration::from_mins(3)).await
    }

    /// Ends a worker and removes its state; its tenant sees the node go away as when a machine dies.
    ///
    /// # Errors
    /// When there is no such worker or something of it cannot be removed.
    pub async fn remove_worker(&self, number: u8) -> Result<()> {
        let name = format!("worker-{number}");
        let host = self.host(&name)?;
        host.stop().await?;
        self.machine()
            .control_groups
            .remove(&self.control_group(&name))?;
        std::fs::remove_dir_all(host.state())
            .with_context(|| format!("removing {}", host.state().display()))
    }

    /// Routes between the pods of all workers of one tenant.
    async fn connect_pods(&self, kubeconfig: &Path) -> Result<()> {
        let members: Vec<_> = self
            .hosts()
            .into_iter()
            .filter_map(|host| membership(&host).map(|member| (host, member)))
            .filter(|(host, member)| host.is_running() && member.kubeconfig == kubeconfig)
            .collect();
        for (from, _) in &members {
            for (to, member) in members.iter().filter(|(to, _)| to.name() != from.name()) {
                for pods in &member.pods {
                    let via = if pods.contains(':') {
                        to.ipv6().map(IpAddr::V6)
                    } else {
                        Some(to.address().into())
                    };
                    let via = via.context("pods of a family that their host lacks")?;
                    from.run(["ip", "route", "replace", pods, "via", &via.to_string()])
                        .await?;
                }
            }
        }
        Ok(())
    }
}

/// Where there is systemd, the kubelet is its.
fn keep_kubelet(worker: &Host, node_ip: String) -> Result<()> {
    if worker.has_systemd() {
        return Ok(());
    }
    worker.keep_running(&kubelet(node_ip))
}

/// What waits for kubeadm, and then runs with these addresses.
fn kubelet(node_ip: String) -> Program {
    Program {
        name: "kubelet".into(),
        command: ["sh", "-c", KUBELET].map(str::to_owned).into(),
        environment: [("NODE_IP".to_owned(), node_ip)].into(),
        start_when: Some("/var/lib/kubelet/config.yaml".into()),
        ..Program::default()
    }
}

/// The worker's address of each IP family that the tenant's Services have, in their order.
async fn node_ip(tenant: &Client, worker: &Host) -> Result<String> {
    let networks = Api::<ServiceCIDR>::all(tenant.clone());
    let spec = networks.get("kubernetes").await?.spec;
    let mut addresses = Vec::new();
    for network in spec.unwrap_or_default().cidrs.into_iter().flatten() {
        if network.contains(':') {
            let ipv6 = worker.ipv6();
            let ipv6 = ipv6.context("the tenant has IPv6; make the lab with --dual-stack")?;
            addresses.push(ipv6.to_string());
        } else {
            addresses.push(worker.address().to_string());
        }
    }
    Ok(addresses.join(","))
}

fn membership(worker: &Host) -> Option<Membership> {
    serde_json::from_slice(&std::fs::read(membership_file(worker)).ok()?).ok()
}

fn membership_file(worker: &Host) -> PathBuf {
    worker.state().join("membership.json")
}

async fn pod_networks_of(client: &Client, worker: &Host) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(client.clone());
    let begun = Instant::now();
    loop {
        let node = nodes
            .get_opt(worker.name())
            .await
            .context("reading the worker's node")?;
        if let Some(pods) = node.and_then(|node| node.spec?.pod_cidrs) {
            return Ok(pods);
        }
        ensure!(
            begun.elapsed() < Duration::from_mins(1),
            "the node {} got no podCIDR from the tenant's controller manager",
            worker.name()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
