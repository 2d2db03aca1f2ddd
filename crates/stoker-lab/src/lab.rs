//! A lab: what people bring up with `make up` and what end-to-end tests run on.

mod program;

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::addresses::Addresses;
use crate::host::{Host, HostPlan, Systemd};
use crate::images;
use crate::machine::Machine;
use crate::network_link;
use crate::paths::{Paths, labs};
use crate::process::Process;
use crate::requirements;
use crate::steps::Steps;
use crate::upstream::Upstream;
use crate::versions::{
    CONTAINERD, ETCD, ETCD_BELOW_FLOOR, HELM, KubernetesVersion, default_kubernetes,
    oldest_kubernetes,
};

/// What can be chosen about a lab.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Name, from which bridge, addresses and directories follow. Labs of different names live side by side.
    pub name: String,
    /// Whether the management cluster's etcd waits for the disk, as a real one does. The pool's always does.
    pub sync_management_etcd: bool,
    /// Whether hosts, the management cluster and its load balancers have IPv6 beside IPv4. A lab that was made with it
    /// keeps it.
    pub dual_stack: bool,
}

impl LabOptions {
    /// The usual lab under a name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sync_management_etcd: true,
            dual_stack: false,
        }
    }
}

/// One lab on this machine, up or not.
#[derive(Debug, Clone)]
pub struct Lab {
    options: LabOptions,
    paths: Paths,
    addresses: Addresses,
    machine: Machine,
    upstream: Upstream,
    steps: Steps,
}

impl Lab {
    /// Looks at the machine; starts nothing.
    ///
    /// # Errors
    /// When the name is not allowed, or the machine has no control groups or no place for a cache.
    pub fn new(options: LabOptions) -> Result<Self> {
        let steps = Steps::new();
        let paths = Paths::of(&options.name)?;
        let addresses = Addresses::of(&options.name);
        let dual_stack = options.dual_stack || paths.dual_stack_mark().exists();
        Ok(Self {
            paths,
            addresses: if dual_stack {
                addresses.with_ipv6()
            } else {
                addresses
            },
            machine: Machine::look()?,
            upstream: Upstream::open(steps.clone())?,
            options,
            steps,
        })
    }

    /// Waits until no other run brings this lab up or takes it down; none begins while the file is held.
    ///
    /// # Errors
    /// When the lock cannot be made.
    pub async fn alone(&self) -> Result<File> {
        let key = format!("lab-{}", self.paths.lab());
        self.upstream.cache().lock(&self.steps, &key).await
    }

    /// Brings up the management cluster and the pool. What is there already is left alone, so it also goes on
    /// after an interruption.
    ///
    /// # Errors
    /// When the machine lacks something (the error says how to mend it) or a step fails (it says where the
    /// log is).
    pub async fn up(&self) -> Result<()> {
        let is_made = self.paths.management_pki().exists();
        let lacks_ipv6 = is_made && !self.paths.dual_stack_mark().exists();
        ensure!(
            !(lacks_ipv6 && self.options.dual_stack),
            "the lab `{}` was made without IPv6: take it down first",
            self.paths.lab()
        );
        let pool = self.host(crate::pool::HOST);
        let is_elsewhere = pool.is_ok_and(|pool| pool.address() != self.addresses.pool());
        ensure!(
            !is_elsewhere,
            "the lab `{}` was made by another version, with other addresses: take it down first",
            self.paths.lab()
        );
        if !self.is_up() {
            self.meet_requirements().await?;
            let others = other_labs_that_run(self.paths.lab());
            network_link::ensure_free(self.addresses, self.paths.lab(), &others).await?;
        }
        Box::pin(self.build(self.kubernetes())).await?;
        self.install_program()?;
        if self.options.dual_stack {
            std::fs::write(self.paths.dual_stack_mark(), "").context("noting both IP families")?;
        }
        self.machine
            .control_groups
            .make(&self.paths.control_group())?;
        self.steps
            .step("bridge", network_link::make_bridge(self.addresses))
            .await?;
        self.steps.step("pool etcd", self.start_pool()).await?;
        // Boxed, as it holds the build of every component.
        Box::pin(self.start_management()).await?;
        self.link_binaries().await
    }

    /// Checks that the machine has what builds and a lab need, and installs missing Debian packages.
    ///
    /// # Errors
    /// Says what is missing and how to mend it.
    pub async fn meet_requirements(&self) -> Result<()> {
        requirements::meet(&self.steps, &self.machine).await
    }

    /// Builds everything upstream that a lab with tenants of a version needs, one after the other.
    ///
    /// # Errors
    /// When a build fails.
    pub async fn build(&self, version: KubernetesVersion) -> Result<()> {
        self.upstream.etcd(ETCD).await?;
        self.upstream.containerd(CONTAINERD).await?;
        images::all(&self.upstream, version).await.map(drop)
    }

    /// Builds everything upstream that the tests of the repository need.
    ///
    /// # Errors
    /// When a build fails.
    pub async fn build_for_tests(&self) -> Result<()> {
        self.build(self.kubernetes()).await?;
        self.build(oldest_kubernetes()).await?;
        self.upstream.helm(HELM).await?;
        images::sample_device_plugin(&self.upstream).await?;
        self.upstream.etcd(ETCD_BELOW_FLOOR).await.map(drop)
    }

    /// Makes the management cluster able to run tenants of a Kubernetes version beside its own, by bringing it the
    /// images that their control planes run.
    ///
    /// # Errors
    /// When the lab is not up, or the version does not build.
    pub async fn offer_kubernetes(&self, version: KubernetesVersion) -> Result<()> {
        let host = self.host(crate::management::HOST)?;
        let images = images::control_plane(&self.upstream, version).await?;
        images::import(&host, &images).await
    }

    /// Ends everything and removes every trace but the cache of builds.
    ///
    /// # Errors
    /// When something does not end or cannot be removed; a second call goes on.
    pub async fn down(&self) -> Result<()> {
        let stop = async {
            for host in self.hosts() {
                host.stop().await?;
            }
            Ok(())
        };
        self.steps.step("ending the hosts", stop).await?;
        self.steps
            .step("bridge", network_link::remove_bridge(self.addresses))
            .await?;
        let remove = async {
            let groups = &self.machine.control_groups;
            groups.remove(&self.paths.control_group())?;
            groups.remove_if_empty(crate::paths::CONTROL_GROUPS);
            self.paths.remove_state()?;
            self.take_back_names()?;
            self.remove_people_files()
        };
        self.steps.step("control groups and state", remove).await
    }

    /// Whether the management host runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.host(crate::management::HOST)
            .is_ok_and(|host| host.is_running())
    }

    /// The host `name`: `management`, `pool` or `worker-<n>`.
    ///
    /// # Errors
    /// When the lab has no such host.
    pub fn host(&self, name: &str) -> Result<Host> {
        Host::find(&self.paths, name)
    }

    /// All hosts, running or not, by name.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        let entries = std::fs::read_dir(self.paths.state().join("hosts"))
            .into_iter()
            .flatten();
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
            .iter()
            .filter_map(|name| self.host(name).ok())
            .collect()
    }

    /// Imports an image archive built by others (`buildah push … docker-archive:FILE:REF`) on the management
    /// host, replacing what the name meant before.
    ///
    /// # Errors
    /// When the lab is not up or containerd refuses the archive.
    pub async fn load_image(&self, archive: &Path, reference: &str) -> Result<()> {
        let host = self.host(crate::management::HOST)?;
        // Hosts see the machine's files but for /run, /var/lib and /var/log.
        let seen = self.paths.state().join("image.tar");
        std::fs::copy(archive, &seen).with_context(|| format!("copying {}", archive.display()))?;
        let loaded = images::load(&host, &seen, &[reference.to_owned()]).await;
        std::fs::remove_file(&seen).context("removing the copy of the archive")?;
        loaded
    }

    /// Directories of the lab.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Its address plan.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What was chosen about it.
    #[must_use]
    pub fn options(&self) -> &LabOptions {
        &self.options
    }

    /// The printer of steps, for work that goes on after [`Lab::up`].
    #[must_use]
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Kubernetes of the management cluster and default of tenants.
    #[must_use]
    pub fn kubernetes(&self) -> KubernetesVersion {
        default_kubernetes()
    }

    /// The builder of upstream components.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// URL of the management API server, reachable from the machine and from every host.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("https://{}:6443", self.addresses.management())
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Makes paths of files in the management cluster's certificate directory.
    pub(crate) fn pki_file(&self) -> impl Fn(&str) -> String + use<> {
        let directory = self.paths.management_pki();
        move |name| directory.join(name).display().to_string()
    }

    /// Control group of a host, relative to each tree.
    pub(crate) fn control_group(&self, host: &str) -> String {
        format!("{}/{host}", self.paths.control_group())
    }

    /// The `stoker-lab` program that hosts run.
    pub(crate) fn program(&self) -> PathBuf {
        self.paths.state().join("bin/stoker-lab")
    }

    pub(crate) async fn start_host(
        &self,
        name: &str,
        address: Ipv4Addr,
        binaries: Vec<PathBuf>,
    ) -> Result<Host> {
        self.start_host_by(name, address, binaries, None).await
    }

    /// A host whose first process is systemd.
    pub(crate) async fn start_host_with_systemd(
        &self,
        name: &str,
        address: Ipv4Addr,
        binaries: Vec<PathBuf>,
    ) -> Result<Host> {
        let group = format!("{}/systemd", self.control_group(name));
        let groups = self.machine.control_groups.make_for_systemd(&group)?;
        let systemd = Some(Systemd { groups });
        self.start_host_by(name, address, binaries, systemd).await
    }

    async fn start_host_by(
        &self,
        name: &str,
        address: Ipv4Addr,
        binaries: Vec<PathBuf>,
        systemd: Option<Systemd>,
    ) -> Result<Host> {
        self.machine
            .control_groups
            .make(&self.control_group(name))?;
        let plan = HostPlan {
            paths: &self.paths,
            name,
            address,
            addresses: self.addresses,
            name_servers: self.name_servers(),
            binaries,
            supervisor: self.program(),
            cache: self.upstream.cache().root().to_owned(),
            systemd,
        };
        Host::start(&plan)
            .await
            .with_context(|| format!("starting the host `{name}`"))
    }

    async fn link_binaries(&self) -> Result<()> {
        let directory = self.paths.people().join("bin");
        std::fs::create_dir_all(&directory).context("making .stoker/bin")?;
        let kubernetes = self.upstream.kubernetes(self.kubernetes()).await?;
        let etcd = self.upstream.etcd(ETCD).await?;
        for (from, name) in [
            (&kubernetes, "kubectl"),
            (&kubernetes, "kubeadm"),
            (&etcd, "etcdctl"),
        ] {
            let link = directory.join(name);
            // Not there on a first run.
            let _ = std::fs::remove_file(&link);
            symlink(from.join(name), &link).with_context(|| format!("linking {name}"))?;
        }
        Ok(())
    }

    fn remove_people_files(&self) -> Result<()> {
        let directory = self.paths.people();
        let entries = std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten();
        for path in entries.map(|entry| entry.path()) {
            let ours = path
                .extension()
                .is_some_and(|ending| ending == "kubeconfig");
            if path.file_name().is_some_and(|name| name == "bin") {
                std::fs::remove_dir_all(&path).context("removing .stoker/bin")?;
            } else if ours {
                std::fs::remove_file(&path).context("removing a kubeconfig")?;
            }
        }
        // Another lab's files may be below it, then it stays.
        let _ = std::fs::remove_dir(&directory);
        Ok(())
    }
}

/// Labs of this machine with a host that runs, but for this one; what a killed lab left does not count.
fn other_labs_that_run(this: &str) -> Vec<String> {
    let runs = |lab: &String| {
        let paths = Paths::of(lab).ok()?;
        let mut hosts = std::fs::read_dir(paths.state().join("hosts"))
            .ok()?
            .flatten();
        hosts.find_map(|host| {
            Process::load(&host.path().join("process.json")).filter(Process::is_running)
        })
    };
    let others = labs().into_iter().filter(|lab| lab != this);
    others.filter(|lab| runs(lab).is_some()).collect()
}
