//! A tenant with the tunnel whose node is behind a wall: it dials out, and nobody dials it.
//!
//! ```text
//!  management ── control-plane pods (API server, warden) ◄══ tunnel, dialled by the node ══╗
//!                        │                                                               ║
//!                        ╳ the wall: every new connection is dropped and counted         ║
//!  worker-1 ── eth0 ─────┴── kubelet, pods, Services ── konnectivity-agent ══════════════╝
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoker_lab::credentials;
use stoker_lab::host::Host;

use crate::door::Door;
use crate::far_server::{FILES, PORT, TLS_PORT};
use crate::world::{Tenant, World, eventually, text};

pub(crate) const TENANT: &str = "walled";
/// The pod, and its Service, that answer behind the wall.
pub(crate) const FAR: &str = "far";
/// Where this program is in the pod.
pub(crate) const PROGRAM: &str = "/far";
const WORKER: u8 = 1;
const SOON: Duration = Duration::from_mins(1);

/// Connections from outside, counted and dropped before anything else sees them. What the node itself began goes on.
const WALL: &str = r#"add table inet wall
delete table inet wall
table inet wall {
	counter dialled { }
	chain outside {
		type filter hook prerouting priority -150; policy accept;
		iifname "eth0" tcp flags & (fin | syn | rst | ack) == syn counter name "dialled" drop
		iifname "eth0" ct state new drop
	}
}
"#;

/// The tenant, its node, and what is around it.
pub(crate) struct Walled<'a> {
    pub(crate) world: &'a World,
    pub(crate) tenant: Tenant,
    pub(crate) worker: Host,
    /// The authority of the pod's certificate, PEM.
    pub(crate) ca: String,
}

impl<'a> Walled<'a> {
    /// Made where it is not there; the wall is up.
    pub(crate) async fn of(world: &'a World) -> Result<Self> {
        let tenant = match tunnel(world).await? {
            Some(_) => world.ready(TENANT).await?,
            None => tenant(world, Some(&json!({})), 1).await?,
        };
        let kubeconfig = world.lab.paths().kubeconfig(TENANT);
        world.lab.write_tenant_kubeconfig(TENANT, TENANT).await?;
        let worker = world.lab.add_worker(WORKER, world.lab.kubernetes()).await?;
        let walled = Self {
            world,
            ca: String::new(),
            tenant,
            worker,
        };
        // Before it joins: nothing gets past that was there before.
        if walled.dialled().await.is_err() {
            raise(&walled.worker).await?;
        }
        let joined = ["test", "-e", "/etc/kubernetes/kubelet.conf"];
        if walled.worker.run(joined).await.is_err() {
            world.lab.join(&walled.worker, &kubeconfig).await?;
        }
        let agent = "daemonset/konnectivity-agent";
        world.lab.rolled_out(TENANT, "kube-system", agent).await?;
        let ca = walled.far_pod().await?;
        Ok(Self { ca, ..walled })
    }

    pub(crate) async fn lower(&self) -> Result<()> {
        let delete = ["nft", "delete", "table", "inet", "wall"];
        self.worker.run(delete).await.map(drop)
    }

    /// How many connections from outside have met the wall since it was raised.
    ///
    /// # Errors
    /// There is no wall.
    pub(crate) async fn dialled(&self) -> Result<u64> {
        counter(&self.worker, "wall", "dialled").await
    }

    /// The wall's work: with it nobody of management reaches the kubelet, without it all do. Counts from nothing after this.
    pub(crate) async fn proved(&self) -> Result<()> {
        let kubelet = format!("{}/10250", self.worker.address());
        let pod = self.control_plane().await?;
        let inside = self.world.pid(&pod[0], "kube-apiserver").await?;
        for pid in ["1", &inside] {
            ensure!(
                !dials(self.world, pid, &kubelet).await?,
                "the kubelet is reached"
            );
        }
        ensure!(self.dialled().await? >= 2, "the wall has counted nobody");
        self.lower().await?;
        let mut reached = true;
        for pid in ["1", &inside] {
            reached &= dials(self.world, pid, &kubelet).await?;
        }
        raise(&self.worker).await?;
        ensure!(reached, "the kubelet is not reached without the wall");
        Ok(())
    }

    /// The control-plane pods that are ready, by name.
    pub(crate) async fn control_plane(&self) -> Result<Vec<Pod>> {
        let mut pods = self.world.pods(TENANT).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && address(pod).is_ok());
        pods.sort_by_key(ResourceExt::name_any);
        ensure!(!pods.is_empty(), "no control plane runs");
        Ok(pods)
    }

    /// An agent that is not about to end.
    pub(crate) async fn agent(&self) -> Result<Pod> {
        let mut agents = self.agents().await?;
        agents.retain(|pod| pod.metadata.deletion_timestamp.is_none() && address(pod).is_ok());
        agents.pop().context("no agent runs")
    }

    /// All of them.
    pub(crate) async fn agents(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.tenant.client.clone(), "kube-system");
        let agents = ListParams::default().labels("k8s-app=konnectivity-agent");
        Ok(pods.list(&agents).await?.items)
    }

    /// Into the API server of that pod.
    pub(crate) async fn door(&self, pod: &Pod) -> Result<Door> {
        Door::at(self.world, &self.tenant, address(pod)?).await
    }

    /// kubectl of the tenant, to its end.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.world.lab.kubectl_with(TENANT, arguments).await
    }

    /// kubectl of the tenant, to be started by the caller.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> tokio::process::Command {
        let paths = self.world.lab.paths();
        let mut command = tokio::process::Command::new(paths.people().join("bin/kubectl"));
        command
            .arg("--kubeconfig")
            .arg(paths.kubeconfig(TENANT))
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    /// The pod, its Service, its certificate; returns the authority of that.
    async fn far_pod(&self) -> Result<String> {
        let client = &self.tenant.client;
        let secrets: Api<Secret> = Api::default_namespaced(client.clone());
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        if let (Some(secret), Some(_)) = (secrets.get_opt(FAR).await?, pods.get_opt(FAR).await?) {
            return text(&secret, "ca.crt");
        }
        let program = self.world.lab.paths().state().join("lab_tunnel");
        // A copy: not everything of the machine is seen on its hosts.
        let _ = std::fs::remove_file(&program);
        std::fs::copy(std::env::current_exe()?, &program).context("copying this program")?;
        let authority = credentials::authority("far")?;
        let name = format!("{FAR}.default.svc");
        let leaf = credentials::server(&authority, FAR, &[&name], &[])?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": FAR },
            "stringData": {
                "ca.crt": authority.certificate(), "tls.crt": leaf.certificate, "tls.key": leaf.key.as_pem(),
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": FAR },
            "spec": { "selector": { "app": FAR }, "ports": [{ "port": 443, "targetPort": TLS_PORT }] },
        });
        let params = PatchParams::apply("e2e").force();
        secrets.patch(FAR, &params, &Patch::Apply(secret)).await?;
        let services: Api<k8s_openapi::api::core::v1::Service> =
            Api::default_namespaced(client.clone());
        services.patch(FAR, &params, &Patch::Apply(service)).await?;
        let pod = pod(&program);
        // A namespace gets its ServiceAccount a moment after the API server is up.
        eventually(SOON, "the pod is made", async || {
            Ok(pods.patch(FAR, &params, &Patch::Apply(&pod)).await?)
        })
        .await?;
        let wait = ["wait", "--for=condition=Ready", "--timeout=90s", "pod/far"];
        self.kubectl(&wait).await?;
        Ok(authority.certificate().to_owned())
    }
}

/// The tunnel in the tenant's spec.
pub(crate) async fn tunnel(world: &World) -> Result<Option<Value>> {
    let Some(found) = world.tenants(TENANT).get_opt(TENANT).await? else {
        return Ok(None);
    };
    let tunnel = found.spec.addons.konnectivity;
    Ok(tunnel.map(serde_json::to_value).transpose()?)
}

/// The tenant Ready, with the tunnel as the spec has it or without, with so many replicas.
pub(crate) async fn tenant(world: &World, tunnel: Option<&Value>, replicas: u8) -> Result<Tenant> {
    let conntrack =
        json!([{ "op": "add", "path": "/conntrack", "value": { "maxPerCore": 0, "min": 0 } }]);
    let mut spec = json!({
        "controlPlane": { "deployment": { "replicas": replicas } },
        "addons": { "kubeProxy": { "configurationJSONPatches": conntrack } },
    });
    if let Some(tunnel) = tunnel {
        spec["addons"]["konnectivity"] = tunnel.clone();
    }
    world.apply_tenant(TENANT, spec).await?;
    world.ready(TENANT).await
}

/// Runs this program, with the libraries of its machine.
fn pod(program: &Path) -> Value {
    let libraries = ["lib", "lib64"];
    let mut volumes = vec![
        json!({ "name": "program", "hostPath": { "path": program, "type": "File" } }),
        json!({ "name": "tls", "secret": { "secretName": FAR } }),
    ];
    let mut mounts = vec![
        json!({ "name": "program", "mountPath": PROGRAM, "readOnly": true }),
        json!({ "name": "tls", "mountPath": FILES, "readOnly": true }),
    ];
    for name in libraries {
        let path = format!("/{name}");
        volumes.push(json!({ "name": name, "hostPath": { "path": path } }));
        mounts.push(json!({ "name": name, "mountPath": path, "readOnly": true }));
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": FAR, "labels": { "app": FAR } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": FAR, "image": stoker_lab::images::agnhost_reference(), "stdin": true,
                "command": [PROGRAM, "far", "serve"],
                "readinessProbe": { "httpGet": { "path": "/", "port": PORT }, "periodSeconds": 1 },
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    })
}

pub(crate) fn address(pod: &Pod) -> Result<IpAddr> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    ip.with_context(|| format!("{} has no address", pod.name_any()))?
        .parse()
        .context("an address")
}

/// Puts a wall before a host.
pub(crate) async fn raise(host: &Host) -> Result<()> {
    nft(host, WALL).await
}

/// Whether a connection comes about from the network of a process of the management host.
pub(crate) async fn dials(world: &World, pid: &str, target: &str) -> Result<bool> {
    let dial = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{target}' 2>&1 && echo yes || echo no");
    let enter = ["nsenter", "-t", pid, "-n", "--", "bash", "-c", &dial];
    let said = world.host()?.run(enter).await?;
    Ok(said.trim().ends_with("yes"))
}

/// Has the rules of a script hold on a host, in the network of its first process.
pub(crate) async fn nft(host: &Host, script: &str) -> Result<()> {
    let file = "/run/e2e.nft";
    host.write(file, script)?;
    host.run(["nft", "-f", file]).await.map(drop)
}

/// What a counter of a host's table has counted, in packets.
pub(crate) async fn counter(host: &Host, table: &str, name: &str) -> Result<u64> {
    let list = ["nft", "-j", "list", "counter", "inet", table, name];
    packets(&host.run(list).await?)
}

/// Packets in what `nft -j list counter` prints.
fn packets(said: &str) -> Result<u64> {
    let said: Value = serde_json::from_str(said)?;
    let entries = said["nftables"].as_array().into_iter().flatten();
    let mut counters = entries.filter_map(|entry| entry["counter"]["packets"].as_u64());
    counters.next().context("no counter")
}

/// Memory of a process of a host in KiB: what is its own, and its whole.
pub(crate) async fn memory(host: &Host, pid: &str) -> Result<(u64, u64)> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let said = host.run(["cat", file.as_str()]).await?;
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        value.with_context(|| format!("no {name} in {file}"))
    };
    Ok((field("Pss:")?, field("Rss:")?))
}
