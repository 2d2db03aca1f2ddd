//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::connect::Target;
use crate::duration::Length;
use crate::{access, convert, events, join, list, logs, steer};

/// What the operator of a fleet of Stoker tenants does daily, on the management cluster of the current kubeconfig.
#[derive(Debug, Parser)]
#[command(version, name = "stokerctl")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List tenants, and what is the matter with each that is not Ready. All namespaces unless `-n` names one.
    List(ListArguments),
    /// Print a short-lived kubeconfig of a tenant. Nothing is stored: it ends by itself.
    Kubeconfig(KubeconfigArguments),
    /// Show the events of a tenant and of its control-plane pods, the latest last.
    Events {
        /// Name of the tenant.
        tenant: String,
    },
    /// Show the logs of a tenant's control-plane pods.
    Logs(LogArguments),
    /// Make a `JoinToken`, and print what to type on the machines that join by it.
    Join(JoinArguments),
    /// Set the number of control-plane replicas; 0 puts the tenant to sleep.
    Scale {
        /// Name of the tenant.
        tenant: String,
        /// Replicas.
        replicas: u16,
    },
    /// Put a tenant to sleep now, until its schedule, a connection or `wake` wakes it. Data and keys are kept.
    Sleep {
        /// Name of the tenant.
        tenant: String,
    },
    /// Wake a tenant that sleeps, until its next time to.
    Wake {
        /// Name of the tenant.
        tenant: String,
    },
    /// Have the operator leave a tenant alone, until it is resumed.
    Pause {
        /// Name of the tenant.
        tenant: String,
        /// Why, for whoever finds it paused.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Have the operator keep up a paused tenant again.
    Resume {
        /// Name of the tenant.
        tenant: String,
    },
    /// Turn Kamaji's manifests into Stoker's: result on standard output, a warning for all that is lost on standard error.
    Convert(ConvertArguments),
}

/// Of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// All namespaces, as without `-n`.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only tenants that are not Ready, and not asleep as wanted.
    #[arg(long)]
    pub(crate) not_ready: bool,
    /// Only tenants with these labels.
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// The objects.
    Json,
    /// The objects.
    Yaml,
}

/// Of `kubeconfig`.
#[derive(Debug, Args)]
pub(crate) struct KubeconfigArguments {
    /// Name of the tenant.
    pub(crate) tenant: String,
    /// How long it works, such as 30m or 8h: from 10 minutes to a day. For longer, make a `KubeconfigGenerator`.
    #[arg(long = "for", default_value = "1h", value_name = "LENGTH")]
    pub(crate) lifetime: Length,
    /// User name in the tenant, as its audit log has it. Default: `stokerctl:` and who you are on the management cluster.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Groups in the tenant; may be given several times.
    #[arg(long = "group", default_value = "kubeadm:cluster-admins")]
    pub(crate) groups: Vec<String>,
    /// The kubeconfig that this `KubeconfigGenerator` keeps for the tenant, instead of a new one.
    #[arg(long, conflicts_with_all = ["lifetime", "user", "groups"])]
    pub(crate) generator: Option<String>,
    /// With the address inside the management cluster.
    #[arg(long, conflicts_with = "generator")]
    pub(crate) internal: bool,
    /// Write it there, readable by you alone, instead of standard output.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
}

/// Of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// Name of the tenant.
    pub(crate) tenant: String,
    /// One container, such as kube-apiserver, instead of all.
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Go on as lines come, until the pods end.
    #[arg(short, long, conflicts_with = "previous")]
    pub(crate) follow: bool,
    /// Of the container's run before, which ended.
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// The last lines of each container only.
    #[arg(long)]
    pub(crate) tail: Option<i64>,
    /// Lines of this last time only, such as 10m.
    #[arg(long)]
    pub(crate) since: Option<Length>,
}

/// Of `join`. Labels, taints, devices and who may join are for a `JoinToken` of your own.
#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// Name of the tenant.
    pub(crate) tenant: String,
    /// How long it lets machines in, such as 30m, 8h or 2d; a week at most.
    #[arg(long, default_value = "1h")]
    pub(crate) ttl: Length,
    /// How many machines may join by it.
    #[arg(long, default_value_t = 1)]
    pub(crate) uses: u16,
    /// Print a `kubeadm join` command instead of `stoker-node join`.
    #[arg(long)]
    pub(crate) kubeadm: bool,
}

/// Of `convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArguments {
    /// Files, `-` for standard input.
    #[arg(short, long = "filename", default_value = "-")]
    pub(crate) files: Vec<PathBuf>,
    /// Fail when anything is lost.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Does what was asked.
///
/// # Errors
/// What was asked could not be done; the error says what to do.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let target = arguments.target;
    match arguments.command {
        Command::List(wanted) => list::list(&target, &wanted).await?,
        Command::Kubeconfig(wanted) => access::kubeconfig(&target, &wanted).await?,
        Command::Events { tenant } => events::events(&target, &tenant).await?,
        Command::Logs(wanted) => logs::logs(&target, &wanted).await?,
        Command::Join(wanted) => join::join(&target, &wanted).await?,
        Command::Scale { tenant, replicas } => steer::scale(&target, &tenant, replicas).await?,
        Command::Sleep { tenant } => steer::sleep(&target, &tenant).await?,
        Command::Wake { tenant } => steer::wake(&target, &tenant).await?,
        Command::Pause { tenant, reason } => steer::pause(&target, &tenant, &reason).await?,
        Command::Resume { tenant } => steer::resume(&target, &tenant).await?,
        Command::Convert(wanted) => return convert::convert(&wanted),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_generated_kubeconfig_has_its_own_lifetime_and_groups() {
        let both = ["stokerctl", "kubeconfig", "a", "--generator=g", "--for=1h"];
        assert!(Arguments::try_parse_from(both).is_err());
        let one = ["stokerctl", "kubeconfig", "a", "--generator=g"];
        assert!(Arguments::try_parse_from(one).is_ok());
    }
}
