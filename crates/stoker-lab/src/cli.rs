//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use futures::future::try_join_all;
use stoker_lab::handwritten::Handwritten;
use stoker_lab::host::supervisor;
use stoker_lab::lab::{Lab, LabOptions};
use stoker_lab::network::{self, NetworkArgs};
use stoker_lab::upstream::CacheEntry;
use stoker_lab::versions::{KubernetesVersion, find_kubernetes};

/// Real Kubernetes on one Linux machine, for trying Stoker and for its end-to-end tests.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// Name of the lab; labs of different names live side by side.
    #[arg(long, global = true, env = "STOKER_LAB_NAME", default_value = "demo")]
    lab: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the lab up; what is there already is left alone.
    Up {
        /// Do not wait for the disk in the management cluster's etcd (the pool always does).
        #[arg(long, env = "STOKER_LAB_UNSAFE_NO_FSYNC")]
        unsafe_no_fsync: bool,
        /// Give hosts, management cluster and load balancers IPv6 beside IPv4.
        #[arg(long, env = "STOKER_LAB_DUAL_STACK")]
        dual_stack: bool,
        /// Stop after the management cluster and the pool: no operator, tenant or worker.
        #[arg(long)]
        management_only: bool,
    },
    /// End the lab and leave the machine as it was.
    Down,
    /// Show hosts and what runs on them.
    Status,
    /// Run a command, or a shell, inside a host.
    Enter {
        /// `management`, `pool` or `worker-<n>`.
        host: String,
        /// The command; a shell when there is none.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Run kubectl against the management cluster, or against a tenant.
    Kubectl {
        /// Name of a kubeconfig in `.stoker` instead of `management`.
        #[arg(long)]
        tenant: Option<String>,
        /// Arguments of kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Make or remove a worker host.
    Worker {
        #[command(subcommand)]
        action: WorkerAction,
    },
    /// Join a worker to a tenant with an unmodified `kubeadm join`.
    Join {
        /// `worker-<n>`.
        worker: String,
        /// Administrator's kubeconfig of the tenant.
        kubeconfig: PathBuf,
    },
    /// Collect the logs of all hosts and of their containers in a directory.
    Logs {
        /// The directory; made when it is missing.
        #[arg(long, default_value = "lab-logs")]
        out: PathBuf,
    },
    /// Time the birth of a hand-written tenant control plane.
    Handwritten {
        /// How many at once.
        #[arg(long, default_value_t = 1)]
        count: u16,
        /// Leave them running.
        #[arg(long)]
        keep: bool,
    },
    /// Import an image archive on the management host.
    LoadImage {
        /// A docker archive.
        archive: PathBuf,
        /// The name of the image in it.
        reference: String,
    },
    /// Bring the management cluster the images of another Kubernetes version, for tenants that ask for it.
    Offer {
        /// The version, such as 1.33.
        kubernetes: String,
    },
    /// Build everything upstream into the cache, without starting anything.
    Build {
        /// What a lab with this Kubernetes version needs, such as 1.35; all that the tests need when missing.
        #[arg(long)]
        kubernetes: Option<String>,
    },
    /// Show what the cache of builds holds, or remove from it what is no longer used.
    Cache {
        #[command(subcommand)]
        action: Option<CacheAction>,
    },
    /// The network daemon of a host.
    #[command(hide = true)]
    Network(NetworkArgs),
    /// The first process of a host.
    #[command(hide = true)]
    Supervise {
        /// State directory of the host.
        state: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum WorkerAction {
    /// Make the host `worker-<number>`, which waits to be joined.
    Add {
        /// 1 to 80.
        number: u8,
        /// Kubernetes version of its kubelet, such as 1.36; the management cluster's when missing.
        #[arg(long)]
        kubernetes: Option<String>,
    },
    /// End the host and remove its state.
    Remove {
        /// 1 to 80.
        number: u8,
    },
}

#[derive(Debug, Subcommand)]
enum CacheAction {
    /// Remove what no run has asked for lately and no lab runs from. Builds do this by themselves, with 14 days.
    Prune {
        /// Days without use.
        #[arg(long, default_value_t = 14)]
        days: u32,
    },
}

pub(crate) fn main(arguments: Arguments) -> ExitCode {
    let result = match &arguments.command {
        // Process 1 of a host reaps every process itself and so must not share that with a runtime.
        Command::Supervise { state } => supervisor::supervise(state).map(|()| ExitCode::SUCCESS),
        _ => run(arguments),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "stoker-lab: {error:#}");
        ExitCode::FAILURE
    })
}

#[tokio::main]
async fn run(arguments: Arguments) -> Result<ExitCode> {
    let lab = |options| Lab::new(options);
    let named = LabOptions::named(&arguments.lab);
    match arguments.command {
        Command::Up {
            unsafe_no_fsync,
            dual_stack,
            management_only,
        } => {
            let lab = lab(LabOptions {
                sync_management_etcd: !unsafe_no_fsync,
                dual_stack,
                ..named
            })?;
            let _alone = lab.alone().await?;
            Box::pin(lab.up()).await?;
            if !management_only {
                lab.whole_job().await?;
                // For people alone.
                if let Err(error) = lab.tell_machine() {
                    lab.steps().note(format!("{error:#}"));
                }
            }
            after_up(&lab);
        }
        Command::Down => {
            let lab = lab(named)?;
            let _alone = lab.alone().await?;
            lab.down().await?;
        }
        Command::Status => status(&lab(named)?),
        Command::Build { kubernetes } => {
            let lab = lab(named)?;
            lab.meet_requirements().await?;
            match kubernetes {
                Some(wanted) => Box::pin(lab.build(find_kubernetes(&wanted)?)).await?,
                None => Box::pin(lab.build_for_tests()).await?,
            }
        }
        Command::Offer { kubernetes } => {
            let version = find_kubernetes(&kubernetes)?;
            Box::pin(lab(named)?.offer_kubernetes(version)).await?;
        }
        Command::LoadImage { archive, reference } => {
            lab(named)?.load_image(&archive, &reference).await?;
        }
        Command::Enter { host, command } => return enter(&lab(named)?, &host, command).await,
        Command::Kubectl { tenant, arguments } => {
            return kubectl(&lab(named)?, tenant.as_deref(), &arguments).await;
        }
        Command::Worker { action } => worker(&lab(named)?, action).await?,
        Command::Join { worker, kubeconfig } => {
            let lab = lab(named)?;
            let kubeconfig = std::path::absolute(&kubeconfig).context("finding the kubeconfig")?;
            let title = format!("joining {worker}");
            lab.steps()
                .step(title, lab.join(&lab.host(&worker)?, &kubeconfig))
                .await?;
        }
        Command::Logs { out } => lab(named)?.collect_logs(&out).await?,
        Command::Handwritten { count, keep } => handwritten(&lab(named)?, count, keep).await?,
        Command::Cache { action } => cache(&lab(named)?, action.as_ref())?,
        Command::Network(arguments) => network::run(arguments).await?,
        Command::Supervise { state } => supervisor::supervise(&state)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn version(lab: &Lab, wanted: Option<&str>) -> Result<KubernetesVersion> {
    wanted.map_or_else(|| Ok(lab.kubernetes()), find_kubernetes)
}

async fn worker(lab: &Lab, action: WorkerAction) -> Result<()> {
    match action {
        WorkerAction::Add { number, kubernetes } => {
            let version = version(lab, kubernetes.as_deref())?;
            let title = format!("worker-{number} with Kubernetes {}", version.version);
            lab.steps()
                .step(title, lab.add_worker(number, version))
                .await
                .map(drop)
        }
        WorkerAction::Remove { number } => lab.remove_worker(number).await,
    }
}

async fn handwritten(lab: &Lab, count: u16, keep: bool) -> Result<()> {
    let names: Vec<_> = (1..=count).map(|number| format!("cli-{number}")).collect();
    let mut tenants = Vec::new();
    for name in &names {
        tenants.push(Handwritten::prepare(lab, name).await?);
    }
    let births = tenants
        .iter()
        .map(|tenant| tenant.birth(Duration::from_mins(5)));
    for (name, birth) in names.iter().zip(try_join_all(births).await?) {
        lab.steps().note(format!(
            "{name}: objects created after {:.2} s, pod address after {:.2} s, /readyz after {:.2} s",
            birth.applied.as_secs_f64(),
            birth.address.as_secs_f64(),
            birth.ready.as_secs_f64()
        ));
    }
    if !keep {
        try_join_all(tenants.into_iter().map(Handwritten::remove)).await?;
    }
    Ok(())
}

fn after_up(lab: &Lab) {
    let steps = lab.steps();
    steps.note(format!("the lab `{}` is up. Next:", lab.paths().lab()));
    let people = lab.paths().people();
    steps.note(format!(
        "  export KUBECONFIG={}",
        lab.paths().kubeconfig("management").display()
    ));
    steps.note(format!(
        "  export PATH={}:$PATH",
        people.join("bin").display()
    ));
    steps.note("  kubectl get pods -A");
    steps.note("  stokerctl list");
    let tenant = lab.paths().kubeconfig(stoker_lab::demo::TENANT);
    if tenant.exists() {
        let tenant = tenant.display();
        steps.note(format!("  kubectl --kubeconfig {tenant} get pods -A"));
    }
}

fn status(lab: &Lab) {
    let mut out = std::io::stdout().lock();
    if lab.hosts().is_empty() {
        let _ = writeln!(
            out,
            "the lab `{}` is not up; `make up` starts one",
            lab.paths().lab()
        );
    }
    for host in lab.hosts() {
        let state = if host.is_running() {
            "running"
        } else {
            "stopped"
        };
        let _ = writeln!(out, "{:12} {:14} {state}", host.name(), host.address());
        for (program, starts) in host.programs() {
            let _ = writeln!(out, "  {program:26} started {starts} time(s)");
        }
    }
}

fn cache(lab: &Lab, action: Option<&CacheAction>) -> Result<()> {
    let (entries, what) = match action {
        None => (lab.upstream().cached()?, "in all"),
        Some(CacheAction::Prune { days }) => (
            lab.upstream().prune(*days * Duration::from_hours(24))?,
            "removed",
        ),
    };
    let mut out = std::io::stdout().lock();
    for CacheEntry { name, size, unused } in &entries {
        let days = unused.as_secs() / 86_400;
        let _ = writeln!(
            out,
            "{:7} MiB  unused for {days:3} days  {name}",
            size >> 20
        );
    }
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    let _ = writeln!(out, "{:7} MiB  {what}", total >> 20);
    Ok(())
}

async fn enter(lab: &Lab, host: &str, command: Vec<String>) -> Result<ExitCode> {
    let command = if command.is_empty() {
        vec!["sh".to_owned(), "-i".to_owned()]
    } else {
        command
    };
    let status = lab
        .host(host)?
        .command(command)?
        .status()
        .await
        .context("entering the host")?;
    Ok(exit_code(status))
}

async fn kubectl(lab: &Lab, tenant: Option<&str>, arguments: &[String]) -> Result<ExitCode> {
    let kubectl = lab
        .upstream()
        .kubernetes(lab.kubernetes())
        .await?
        .join("kubectl");
    let kubeconfig = lab.paths().kubeconfig(tenant.unwrap_or("management"));
    let mut command = stoker_lab::command::program(kubectl, ["--kubeconfig"]);
    let status = command
        .arg(kubeconfig)
        .args(arguments)
        .status()
        .await
        .context("starting kubectl")?;
    Ok(exit_code(status))
}

fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
