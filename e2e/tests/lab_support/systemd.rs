//! A machine that has systemd: what join makes of it are units, and leave takes them away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use stoker_api::labels::LEFT;
use stoker_lab::demo::TENANT;
use stoker_lab::host::Host;
use stoker_lab::images::pause_reference;

use crate::joining::{nothing_is_left, runs_a_pod};
use crate::pods::{restarts, uids};
use crate::tokens;
use crate::units::{AGENT, kill, process, property};
use crate::world::{World, eventually};

const WORKER: u8 = 8;
const NAME: &str = "worker-8";
const POOL: &str = "systemd";
const POD: &str = "on-systemd";
const SOON: Duration = Duration::from_mins(1);
const KUBELET: &str = "kubelet.service";
const UNITS: &str = "/etc/systemd/system";
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/90-stoker-node.conf";
/// As kubeadm's package has them.
const PACKAGE_UNIT: &str = "/lib/systemd/system/kubelet.service";
const PACKAGE_DROP_IN: &str = "/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";

/// Both run as units, come back when they are killed, and the agent restarts the kubelet by systemd. The pod runs on through all
/// of it. Where a package has brought the kubelet's unit, it is that one, with our line, and it stays.
pub(crate) async fn a_machine_with_systemd_runs_both_as_units_until_it_leaves(
    world: &World,
) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let (lab, version) = (&world.lab, world.lab.kubernetes());
    let worker = lab.add_worker_with_systemd(WORKER, version).await?;
    let program = tokens::built().await?;
    let kubeconfig = lab.paths().kubeconfig(TENANT);
    let spec = json!({
        "labels": { "node-restriction.kubernetes.io/pool": POOL }, "nodeNames": [NAME],
    });
    let first = tokens::issue(world, TENANT, "units", &spec).await?;

    let begun = Instant::now();
    lab.join_by_token(&worker, &kubeconfig, &program, &[&first])
        .await?;
    println!("joined and ready after {:.1?}", begun.elapsed());
    let nodes: Api<Node> = Api::all(tenant.client.clone());
    let node = nodes.get(NAME).await?;
    let pool = node.labels().get("node-restriction.kubernetes.io/pool");
    ensure!(pool.is_some_and(|pool| pool == POOL), "{:?}", node.labels());
    runs_a_pod(&tenant, POD, POOL, &pause_reference(version)).await?;
    for unit in [KUBELET, AGENT] {
        runs_as_it_is_enabled(&worker, unit, &format!("{UNITS}/{unit}")).await?;
    }
    eventually(SOON, "the agent reports", async || {
        let node = nodes.get(NAME).await?;
        let agent = node.annotations().get("stoker.dev/node-agent").cloned();
        agent.context("it says nothing")
    })
    .await?;

    let pods: Api<Pod> = Api::namespaced(tenant.client.clone(), "default");
    let before = [pods.get(POD).await?];
    what_is_killed_comes_back(&worker).await?;
    // By its certificate, of a machine that is a node already.
    lab.join_by_token(&worker, &kubeconfig, &program, &[&first])
        .await?;
    let again = nodes.get(NAME).await?;
    ensure!(again.uid() == node.uid(), "it is another Node");
    let after = [pods.get(POD).await?];
    ensure!(
        uids(&before) == uids(&after) && restarts(&before) == restarts(&after),
        "its pod did not run on"
    );
    leave(&worker, &program).await?;
    ensure!(!is_known(&worker, KUBELET).await, "it has a kubelet's unit");
    ensure!(
        nodes.get(NAME).await?.annotations().contains_key(LEFT),
        "it is not marked"
    );

    of_a_package(&worker).await?;
    let program = oddly_named(&worker, &program).await?;
    let second = tokens::issue(world, TENANT, "units-again", &spec).await?;
    lab.join_by_token(&worker, &kubeconfig, &program, &[&second])
        .await?;
    ensure!(
        nodes.get(NAME).await?.uid() != node.uid(),
        "it is the Node of before"
    );
    runs_as_it_is_enabled(&worker, KUBELET, PACKAGE_UNIT).await?;
    leave(&worker, &program).await?;
    ensure!(
        is_known(&worker, KUBELET).await,
        "the package's unit is gone"
    );

    nodes.delete(NAME, &DeleteParams::default()).await?;
    lab.remove_worker(WORKER).await?;
    for token in ["units", "units-again"] {
        let params = DeleteParams::default();
        tokens::of(world, TENANT).delete(token, &params).await?;
    }
    Ok(())
}

async fn runs_as_it_is_enabled(worker: &Host, unit: &str, file: &str) -> Result<()> {
    for question in ["is-active", "is-enabled"] {
        worker.run(["systemctl", question, unit]).await?;
    }
    let found = property(worker, unit, "FragmentPath").await?;
    ensure!(found == file, "{unit} is {found}");
    if found.starts_with(UNITS) {
        let limit = property(worker, unit, "StartLimitIntervalUSec").await?;
        ensure!(limit == "0", "{unit} is given up on: {limit}");
    }
    if unit == KUBELET {
        let drop_ins = property(worker, unit, "DropInPaths").await?;
        ensure!(drop_ins.contains(DROP_IN), "its drop-ins: {drop_ins}");
        let line = format!("/proc/{}/cmdline", process(worker, unit).await?);
        let line = worker.run(["cat", &line]).await?;
        ensure!(
            line.contains("/kubelet\0--kubeconfig=") && !line.contains("--bootstrap-kubeconfig"),
            "it runs {line:?}"
        );
    }
    Ok(())
}

/// The agent, which finds at its start that a restart of the kubelet is due since a change of the tenant's authorities; then the
/// kubelet.
async fn what_is_killed_comes_back(worker: &Host) -> Result<()> {
    let kubelet = process(worker, KUBELET).await?;
    let due = "/var/lib/stoker-node/restart-due";
    worker.run(["touch", due]).await?;
    kill(worker, AGENT).await?;
    eventually(
        SOON,
        "the agent has systemd restart the kubelet",
        async || {
            let (now, restarts) = (
                process(worker, KUBELET).await?,
                property(worker, KUBELET, "NRestarts").await?,
            );
            ensure!(
                now != kubelet && restarts == "0",
                "{kubelet}, {now}: {restarts}"
            );
            let is_due = worker.run(["test", "-e", due]).await.is_ok();
            ensure!(!is_due, "it is still due");
            Ok(())
        },
    )
    .await?;
    kill(worker, KUBELET).await
}

async fn leave(worker: &Host, program: &Path) -> Result<()> {
    let program = program.display().to_string();
    let begun = Instant::now();
    worker
        .run([&*program, "leave", "--drain-seconds", "20"])
        .await?;
    println!("left after {:.1?}", begun.elapsed());
    ensure!(!is_known(worker, AGENT).await, "it has the agent's unit");
    let units = worker.run(["find", UNITS, "-mindepth", "1"]).await?;
    ensure!(units.is_empty(), "units are left: {units}");
    let failed = worker
        .run(["systemctl", "list-units", "--all", "--plain", "--no-legend"])
        .await?;
    ensure!(!failed.contains(AGENT), "systemd knows it: {failed}");
    let running = worker.run(["sh", "-c", "pgrep -x 'kubelet|stoker-node' || true"]);
    ensure!(running.await?.trim().is_empty(), "one of them runs on");
    nothing_is_left(worker).await
}

/// The program where units have to quote and escape it.
async fn oddly_named(worker: &Host, program: &Path) -> Result<PathBuf> {
    let odd = Path::new("/opt/50% of $it/stoker-node");
    let directory = odd.parent().context("no directory")?;
    for command in [
        vec!["mkdir".as_ref(), "-p".as_ref(), directory],
        vec!["cp".as_ref(), program, odd],
    ] {
        worker.run(command).await?;
    }
    Ok(odd.to_owned())
}

/// The kubelet's unit and kubeadm's drop-in, as packages have them.
async fn of_a_package(worker: &Host) -> Result<()> {
    worker.write(
        PACKAGE_UNIT,
        "[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\nRestartSec=10\n\n[Install]\nWantedBy=multi-user.target\n",
    )?;
    worker.write(
        PACKAGE_DROP_IN,
        "[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nExecStart=\n\
         ExecStart=/usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf $KUBELET_KUBEADM_ARGS\n",
    )?;
    worker.run(["systemctl", "daemon-reload"]).await.map(drop)
}

async fn is_known(worker: &Host, unit: &str) -> bool {
    worker.run(["systemctl", "cat", unit]).await.is_ok()
}
