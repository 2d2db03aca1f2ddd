//! The lab as people use it: up, used, interrupted, up again, down, and nothing left.
//!
//! Needs root, and builds every upstream component when the cache is empty.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use stoker_lab::handwritten::Handwritten;
use stoker_lab::host::Host;
use stoker_lab::images::agnhost_reference;
use stoker_lab::lab::{Lab, LabOptions};

const NAME: &str = "selftest";

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_works_survives_an_interruption_and_leaves_nothing() {
    let lab = Lab::new(LabOptions::named(NAME)).unwrap();
    lab.down().await.unwrap();
    let before = Traces::of_this_machine().unwrap();

    // An interrupted bring-up is gone on with.
    let interrupted = tokio::time::timeout(Duration::from_secs(4), Box::pin(lab.up())).await;
    assert!(
        interrupted.is_err(),
        "it was expected to take longer than that"
    );
    Box::pin(lab.up()).await.unwrap();

    let begun = Instant::now();
    Box::pin(lab.up()).await.unwrap();
    let again = begun.elapsed();
    assert!(
        again < Duration::from_secs(15),
        "a second `up` took {again:?}"
    );
    let restarts: Vec<_> = lab.hosts().iter().flat_map(Host::programs).collect();
    let etcd = restarts.iter().filter(|(name, _)| name == "etcd");
    assert!(etcd.clone().count() == 2 && etcd.into_iter().all(|(_, starts)| *starts == 1));

    a_pod_reaches_a_service_by_its_name(&lab).await.unwrap();
    a_handwritten_tenant_becomes_ready(&lab).await.unwrap();

    // As when the machine was restarted: the state is there, the processes are not.
    let namespaces = process_namespaces(&lab);
    let host = lab.host("management").unwrap();
    host.process().unwrap().kill().await.unwrap();
    assert!(!lab.is_up());
    Box::pin(lab.up()).await.unwrap();
    a_pod_reaches_a_service_by_its_name(&lab).await.unwrap();

    let namespaces: BTreeSet<_> = namespaces
        .into_iter()
        .chain(process_namespaces(&lab))
        .collect();
    lab.down().await.unwrap();
    lab.down().await.unwrap();
    assert_eq!(Traces::of_this_machine().unwrap(), before);
    assert!(!lab.paths().state().exists() && !lab.paths().people().exists());
    let left: Vec<_> = processes()
        .filter(|process| {
            std::fs::read_link(process.join("ns/pid")).is_ok_and(|ns| namespaces.contains(&ns))
        })
        .collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

async fn a_pod_reaches_a_service_by_its_name(lab: &Lab) -> Result<()> {
    let image = agnhost_reference();
    let container =
        |arguments: &[&str]| json!({ "name": "agnhost", "image": image, "args": arguments });
    let labels = json!({ "app": "web" });
    lab.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [container(&["netexec", "--http-port=8080"])] },
                },
            },
        },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] },
        },
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "client", "namespace": "default" },
            "spec": { "containers": [container(&["pause"])] },
        },
    ]}))
    .await?;
    for wait in [
        &[
            "wait",
            "--for=condition=Available",
            "--timeout=60s",
            "deployment/web",
        ][..],
        &[
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "pod/client",
        ],
    ] {
        lab.kubectl(wait).await?;
    }
    let name = "web.default.svc.cluster.local:80";
    let connect = [
        "exec",
        "client",
        "--",
        "/agnhost",
        "connect",
        "--timeout=3s",
        name,
    ];
    let begun = Instant::now();
    while let Err(error) = lab.kubectl(&connect).await {
        ensure!(begun.elapsed() < Duration::from_mins(2), "{error:#}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let wrong = [
        "exec",
        "client",
        "--",
        "/agnhost",
        "connect",
        "--timeout=3s",
        "nobody.default:80",
    ];
    ensure!(
        lab.kubectl(&wrong).await.is_err(),
        "a name that no Service has was reached"
    );
    let logs = lab.kubectl(&["logs", "deployment/web"]).await?;
    ensure!(logs.contains("8080"), "{logs}");
    Ok(())
}

async fn a_handwritten_tenant_becomes_ready(lab: &Lab) -> Result<()> {
    let tenant = Handwritten::prepare(lab, "one").await?;
    let birth = tenant.birth(Duration::from_mins(2)).await?;
    lab.steps().note(format!(
        "a hand-written tenant's /readyz after {:.2} s",
        birth.ready.as_secs_f64()
    ));
    tenant.remove().await
}

/// What a lab could leave behind on the machine.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    interfaces: BTreeSet<PathBuf>,
    control_groups: BTreeSet<PathBuf>,
    mounts: usize,
}

impl Traces {
    /// Those that carry this lab's names, as other labs may come and go meanwhile.
    fn of_this_machine() -> Result<Self> {
        let number = Lab::new(LabOptions::named(NAME))?
            .addresses()
            .gateway()
            .octets()[2];
        let ours = |path: &Path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name == format!("stoker{number}") || name.starts_with(&format!("stoker{number}."))
        };
        let trees = list(Path::new("/sys/fs/cgroup"));
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        Ok(Self {
            interfaces: list(Path::new("/sys/class/net"))
                .into_iter()
                .filter(|path| ours(path))
                .collect(),
            control_groups: trees
                .into_iter()
                .map(|tree| tree.join("stoker-lab").join(NAME))
                .filter(|group| group.exists())
                .collect(),
            mounts: mounts.lines().filter(|line| line.contains(NAME)).count(),
        })
    }
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn processes() -> impl Iterator<Item = PathBuf> {
    list(Path::new("/proc"))
        .into_iter()
        .filter(|path| path.join("ns").exists())
}

/// The process namespaces of the lab's hosts; containers' are below them and end with them.
fn process_namespaces(lab: &Lab) -> Vec<PathBuf> {
    let hosts = lab.hosts();
    let processes = hosts.iter().filter_map(Host::process);
    processes
        .filter_map(|process| std::fs::read_link(format!("/proc/{}/ns/pid", process.pid)).ok())
        .collect()
}
