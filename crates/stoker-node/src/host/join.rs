//! `stoker-node join`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::Value;
use stoker_api::labels::JOINING;
use stoker_pki::JoinCredential;

use super::access::{Who, client};
use super::certificate::{self, Denied};
use super::files::{self, Kept, Local};
use super::paths::{self, CERTIFICATE, KEY, Membership};
use super::preflight::{Facts, Finding, findings, findings_with};
use super::{discover, goodbye, service};

/// A kubelet registers within seconds; its first start may be slow.
const COMES: Duration = Duration::from_mins(4);
const LOOK: Duration = Duration::from_millis(500);

/// Makes this machine a node of the tenant that a token is for.
#[derive(clap::Args, Debug)]
pub(crate) struct JoinArgs {
    /// What the `JoinToken`'s Secret has under `token`: stoker1.…; `-` reads it from standard input.
    token: String,

    /// Look whether this machine can join, and change nothing.
    #[arg(long)]
    preflight_only: bool,

    /// Findings that are to be passed over, by name.
    #[arg(long, value_delimiter = ',')]
    ignore: Vec<String>,

    /// Name of the node. Default: the host's. This and the following need not be said again to go on with a join that was cut off.
    #[arg(long)]
    node_name: Option<String>,

    /// The node's address, or two of them with a comma, as the kubelet's own flag.
    #[arg(long)]
    node_ip: Option<String>,

    /// Socket of the container runtime. Default: containerd's, `unix:///run/containerd/containerd.sock`.
    #[arg(long)]
    runtime: Option<String>,

    /// A file with a `KubeletConfiguration`, YAML or JSON, whose fields take the place of the tenant's.
    #[arg(long)]
    kubelet_config: Option<PathBuf>,

    /// Keep a tunnel to this `host:port`, where no add-on of the tenant does.
    #[arg(long)]
    tunnel: Option<String>,
}

/// Joins, or goes on with a join that was cut off.
pub(crate) async fn join(args: JoinArgs) -> Result<()> {
    let credential = JoinCredential::parse(&token(&args.token)?)?;
    let before = Membership::read()?;
    let named = args.node_name.clone();
    let named = named.or_else(|| before.as_ref().map(|before| before.node.clone()));
    let node = named.map_or_else(host_name, Ok)?;
    if let Some(before) = &before {
        ensure!(
            before.server == credential.server && before.node == node,
            "this machine is the node {:?} of {}: `stoker-node leave` first",
            before.node,
            before.server
        );
        ensure!(
            !before.is_marked(),
            "this machine has left {}, and another one may have its name by now: run `stoker-node leave` to its end, then join by a new token",
            before.server
        );
    }
    let asked = asked(&args, before.as_ref(), &credential.server, &node)?;
    let facts = Facts::gather(&node, &asked.runtime, before.as_ref())?;
    judge(&findings(&facts), &args.ignore)?;
    let tenant = discover::discover(&credential, &node).await?;
    judge(
        &findings_with(&facts, &tenant.version, tenant.ahead),
        &args.ignore,
    )?;
    tracing::info!(
        server = credential.server,
        version = tenant.version,
        node,
        "this machine can join"
    );
    if args.preflight_only {
        return Ok(());
    }
    let local = Local {
        node: node.clone(),
        runtime: asked.runtime.clone(),
        systemd: service::has_systemd(),
        node_ip: asked.node_ip.clone(),
        patch: asked.kubelet_config.clone(),
    };
    let was_let_in = asked.let_in;
    let mut member = asked;
    // Nothing is on the machine of which it does not say whose it is.
    member.write()?;
    if tenant.held {
        goodbye::take_back(&mut member, &tenant.client).await?;
    } else {
        let obtained = certificate::obtain(&tenant.client, &node, KEY, &certificate::JOINING).await;
        if !was_let_in && obtained.as_ref().is_err_and(anyhow::Error::is::<Denied>) {
            // Nothing else is on the machine.
            Membership::forget()?;
        }
        let obtained = obtained?;
        // First, so that there is no certificate of which leave knows nothing.
        member.let_in = true;
        member.leaving = None;
        member.write()?;
        certificate::keep(&obtained, CERTIFICATE, KEY)?;
        tracing::info!("let in");
    }
    member.let_in = true;
    member.write()?;
    let (server, authorities) = (&member.server, &tenant.authorities);
    let write = |kept: &Kept| files::write_all(server, authorities, &tenant.kubelet, &local, kept);
    // Without systemd nobody knows who starts the agent, and when; the add-on's pods are there until then.
    let asked = tenant.asked.labels();
    let does = if local.systemd { &*asked } else { &[] };
    write(&Kept::joining(does))?;
    service::start(&std::env::current_exe().context("finding this program")?)?;
    let registered = registered(&member, authorities).await?;
    // From now on it registers with what its token has given it, whoever deletes its Node.
    write(&Kept::of(&registered))?;
    Membership {
        joined: true,
        ..member
    }
    .write()?;
    tracing::info!(node, "joined");
    Ok(())
}

/// What is to be joined: what is said now, else what was said before.
fn asked(
    args: &JoinArgs,
    before: Option<&Membership>,
    server: &str,
    node: &str,
) -> Result<Membership> {
    let kubelet_config = match (patch(args)?, before) {
        (Some(said), _) => said,
        (None, Some(before)) => before.kubelet_config.clone(),
        (None, None) => Value::Null,
    };
    // The kubelet believes its configuration.
    let runtime = kubelet_config[files::ENDPOINT].as_str().map(str::to_owned);
    let runtime = runtime.or_else(|| args.runtime.clone());
    let runtime = runtime.or_else(|| before.map(|before| before.runtime.clone()));
    let tunnel = args.tunnel.clone();
    let node_ip = args.node_ip.clone();
    Ok(Membership {
        server: server.to_owned(),
        node: node.to_owned(),
        tunnel: tunnel.or_else(|| before?.tunnel.clone()),
        runtime: runtime.unwrap_or_else(|| paths::RUNTIME.to_owned()),
        node_ip: node_ip.or_else(|| before?.node_ip.clone()),
        kubelet_config,
        let_in: before.is_some_and(|before| before.let_in),
        joined: false,
        leaving: before.and_then(|before| before.leaving.clone()),
    })
}

fn token(argument: &str) -> Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("reading the token")?;
    Ok(line)
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("asking for the host's name")?;
    Ok(name.to_string_lossy().to_ascii_lowercase())
}

fn patch(args: &JoinArgs) -> Result<Option<Value>> {
    let Some(path) = &args.kubelet_config else {
        return Ok(None);
    };
    let read = || anyhow::Ok(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?);
    read()
        .map(Some)
        .with_context(|| format!("reading {}", path.display()))
}

/// Says what was found; fails when something of it is not to be passed over.
fn judge(found: &[Finding], ignore: &[String]) -> Result<()> {
    let mut fatal = 0;
    for finding in found {
        let (name, message) = (finding.name, &finding.message);
        if finding.fatal && !ignore.iter().any(|ignored| ignored == name) {
            fatal += 1;
            tracing::error!("{name}: {message}");
        } else {
            tracing::warn!("{name}: {message}");
        }
    }
    if fatal > 0 {
        bail!(
            "{fatal} of these keep the machine from joining; --ignore passes over what is meant so"
        );
    }
    Ok(())
}

/// The Node, once it has come and has what the token gives.
async fn registered(member: &Membership, authorities: &str) -> Result<Node> {
    let begun = Instant::now();
    let mut said = "its kubelet has not registered".to_owned();
    loop {
        ensure!(
            begun.elapsed() < COMES,
            "the node {:?} is not there within {COMES:?}: {said}. Look at the kubelet's log, and run this again to go on",
            member.node
        );
        tokio::time::sleep(LOOK).await;
        // The kubelet may have turned the certificate.
        let client = client(&member.server, Some(authorities), &Who::this_node())?;
        let nodes: Api<Node> = Api::all(client);
        match nodes.get_opt(&member.node).await {
            Ok(Some(node)) if !is_joining(&node) => return Ok(node),
            Ok(Some(_)) => said = waits(&member.node),
            Ok(None) => {}
            Err(error) => said = format!("{:#}", anyhow::Error::from(error)),
        }
    }
}

/// The operator gives what the token says; without the token nobody knows what that was.
fn waits(node: &str) -> String {
    format!(
        "the operator has not given it its labels and taints yet. Where its JoinToken let it in more than a day ago, it does within \
         an hour; where that was deleted, it does not: an admin of the tenant sets them then, and takes off what keeps pods away until then \
         (kubectl taint nodes {node} {JOINING}:NoSchedule-)"
    )
}

fn is_joining(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| &spec.taints).flatten();
    taints.into_iter().any(|taint| taint.key == JOINING)
}

/// The authorities that this machine believes.
pub(super) fn authorities() -> Result<String> {
    std::fs::read_to_string(paths::AUTHORITY)
        .with_context(|| format!("reading {}", paths::AUTHORITY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: JoinArgs,
    }

    fn said(flags: &[&str]) -> JoinArgs {
        Line::parse_from([&["join", "stoker1.x"], flags].concat()).args
    }

    fn joins(flags: &[&str], before: Option<&Membership>) -> Membership {
        asked(&said(flags), before, "a:6443", "w1").unwrap()
    }

    #[test]
    fn a_join_that_goes_on_keeps_what_was_said_before() {
        let plain = joins(&[], None);
        assert_eq!((&*plain.runtime, plain.tunnel), (paths::RUNTIME, None));
        let folder = tempfile::tempdir().unwrap();
        let patch = folder.path().join("patch.yaml");
        let patch = patch.to_str().unwrap();
        std::fs::write(patch, "maxPods: 9\n").unwrap();
        let flags = [
            ["--runtime", "unix:///run/own.sock"],
            ["--tunnel", "a:8132"],
            ["--node-ip", "10.0.0.7"],
            ["--kubelet-config", patch],
        ];
        let first = joins(&flags.concat(), None);
        assert_eq!(first.runtime, "unix:///run/own.sock");
        assert_eq!(joins(&[], Some(&first)), first);
        let other = joins(&["--tunnel", "b:8132"], Some(&first));
        assert_eq!(other.tunnel.as_deref(), Some("b:8132"));
        // What is written over the flag is what the kubelet works with.
        std::fs::write(patch, "containerRuntimeEndpoint: unix:///run/third.sock\n").unwrap();
        let third = joins(&flags.concat(), Some(&first));
        assert_eq!(third.runtime, "unix:///run/third.sock");
    }
}
