//! Names for tenants: the DNS that a provider has for its base domain, as `CoreDNS` on the pool's host, which hosts ask
//! once there is one.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kube::config::Kubeconfig;
use tokio::process::Command;

use crate::command::program;
use crate::credentials::client_of;
use crate::host::Host;
use crate::host::supervisor::Program;
use crate::lab::Lab;
use crate::management::HOST;
use crate::pool;
use crate::product::NAMESPACE;

/// Name of the program that serves names.
const PROGRAM: &str = "dns";

impl Lab {
    /// Starts the DNS server and has all hosts ask it, also those that are made later. It knows no name yet.
    ///
    /// # Errors
    /// When the lab is not up or `CoreDNS` does not build.
    pub async fn serve_names(&self) -> Result<()> {
        let binaries = self.upstream().coredns(self.kubernetes().coredns).await?;
        let records = self.records();
        if !records.exists() {
            std::fs::write(&records, "").context("making the records")?;
        }
        let corefile = self.paths().state().join("Corefile");
        let addresses = self.addresses();
        let servers = addresses.both(addresses.pool());
        let servers: Vec<_> = servers.iter().map(IpAddr::to_string).collect();
        let servers = servers.join(" ");
        let records = records.display();
        // Short times, so that tests need not wait; a provider's are longer.
        let text = format!(
            ".:53 {{\n    bind {servers}\n    errors\n    hosts {records} {{\n        ttl 5\n        \
             reload 1s\n        no_reverse\n    }}\n}}\n"
        );
        std::fs::write(&corefile, text).context("writing the Corefile")?;
        let command = [
            binaries.join("coredns").display().to_string(),
            "-conf".to_owned(),
            corefile.display().to_string(),
        ];
        self.host(pool::HOST)?.keep_running(&Program {
            name: PROGRAM.into(),
            command: command.into(),
            ..Program::default()
        })?;
        let resolver = resolver(&self.name_servers());
        let hosts = self.hosts();
        let mut running = hosts.iter().filter(|host| host.is_running());
        running.try_for_each(|host| host.write("/etc/resolv.conf", &resolver))
    }

    /// Has a name lead to these addresses and no longer to others, from a second later on.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub fn point(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let records = self.records();
        let present = std::fs::read_to_string(&records).unwrap_or_default();
        let of_this_name = format!(" {name}");
        let others = present
            .lines()
            .filter(|line| !line.ends_with(&of_this_name));
        let mut lines: Vec<String> = others.map(str::to_owned).collect();
        lines.extend(addresses.iter().map(|address| format!("{address} {name}")));
        lines.push(String::new());
        let new = records.with_extension("new");
        std::fs::write(&new, lines.join("\n"))
            .and_then(|()| std::fs::rename(&new, &records))
            .with_context(|| format!("writing {}", records.display()))
    }

    /// Starts Stoker's operator with a base domain, under which every tenant has a name.
    ///
    /// # Errors
    /// What kubectl says.
    pub async fn give_base_domain(&self, domain: &str) -> Result<()> {
        let deployment = "deployment/stoker-operator";
        let variable = format!("STOKER_BASE_DOMAIN={domain}");
        self.kubectl(&["-n", NAMESPACE, "set", "env", deployment, &variable])
            .await?;
        self.rolled_out(HOST, NAMESPACE, deployment).await
    }

    /// A client for a tenant's kubeconfig, also where that has a name which only the lab's hosts can look up.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn tenant_client(&self, kubeconfig: &str) -> Result<kube::Client> {
        let mut parsed = Kubeconfig::from_yaml(kubeconfig).context("reading a kubeconfig")?;
        let clusters = parsed.clusters.iter_mut();
        for cluster in clusters.filter_map(|named| named.cluster.as_mut()) {
            let url = cluster.server.clone().unwrap_or_default();
            let url: http::Uri = url.parse().context("a kubeconfig without a server")?;
            let name = url.host().unwrap_or_default().to_owned();
            if let Some(address) = self.address_of(&name) {
                let address = SocketAddr::new(address, url.port_u16().unwrap_or(443));
                cluster.server = Some(format!("https://{address}"));
                cluster.tls_server_name.get_or_insert(name);
            }
        }
        client_of(parsed).await
    }

    /// kubectl or kubeadm, where a tenant's name can be looked up: on the management host if there are names, else here.
    pub(crate) async fn tenant_program(&self, name: &str) -> Result<Command> {
        if self.serves_names() {
            return self.host(HOST)?.command([name]);
        }
        let binaries = self.upstream().kubernetes(self.kubernetes()).await?;
        Ok(program(binaries.join(name), [""; 0]))
    }

    /// What hosts ask for names. Where there is no DNS server nobody answers at the machine's own address, so a question
    /// fails at once instead of after a time limit; and it is not a loopback address, which `CoreDNS` in a pod would take
    /// for itself.
    pub(crate) fn name_servers(&self) -> Vec<IpAddr> {
        let addresses = self.addresses();
        addresses.both(if self.serves_names() {
            addresses.pool()
        } else {
            addresses.gateway()
        })
    }

    fn serves_names(&self) -> bool {
        let pool = self.host(pool::HOST);
        pool.is_ok_and(|host: Host| host.program(PROGRAM).is_ok())
    }

    /// The first address to which a name leads.
    fn address_of(&self, name: &str) -> Option<IpAddr> {
        let text = std::fs::read_to_string(self.records()).ok()?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (address, _) = lines.find(|(_, known)| *known == name)?;
        address.parse().ok()
    }

    /// In the format of `/etc/hosts`.
    pub(crate) fn records(&self) -> PathBuf {
        self.paths().state().join("names")
    }
}

/// `/etc/resolv.conf` of a host that asks these.
pub(crate) fn resolver(name_servers: &[IpAddr]) -> String {
    let lines = name_servers
        .iter()
        .map(|server| format!("nameserver {server}"));
    let lines: Vec<_> = lines.chain([String::new()]).collect();
    lines.join("\n")
}
