//! Logs of a tenant's control-plane pods, all at once, each line with where it comes from.

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use stoker_api::labels::TENANT;

use crate::cli::LogArguments;
use crate::connect::{Target, explain};
use crate::print::{note, out};

/// Prints them.
///
/// # Errors
/// There is no such pod or container, or nobody reads any more.
pub(crate) async fn logs(target: &Target, wanted: &LogArguments) -> Result<()> {
    let connection = target.connect().await?;
    connection.tenant(&wanted.tenant).await?;
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let of_tenant = ListParams::default().labels(&format!("{TENANT}={}", wanted.tenant));
    let found = pods.list(&of_tenant).await.map_err(explain)?.items;
    ensure!(
        !found.is_empty(),
        "{} has no control-plane pods: `stokerctl list` says why; is it asleep?",
        wanted.tenant
    );
    let sources = sources(&found, wanted.container.as_deref());
    ensure!(
        !sources.is_empty(),
        "no container {}: there are {}",
        wanted.container.as_deref().unwrap_or_default(),
        containers(&found).join(", ")
    );
    let several = sources.len() > 1;
    let lines = sources
        .iter()
        .map(|source| lines(&pods, source, wanted, several));
    // One container that says nothing yet holds up no other when they are followed; else they come one after the other.
    if wanted.follow {
        let all = stream::select_all(lines.map(Box::pin));
        all.try_for_each(async |line| out(&line)).await
    } else {
        for lines in lines {
            Box::pin(lines)
                .try_for_each(async |line| out(&line))
                .await?;
        }
        Ok(())
    }
}

/// A container of a pod.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    pod: String,
    container: String,
}

fn names_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| {
        let first = spec.init_containers.iter().flatten();
        first.chain(&spec.containers)
    })
    .map(|container| container.name.as_str())
}

fn containers(pods: &[Pod]) -> Vec<&str> {
    let mut names: Vec<_> = pods.iter().flat_map(names_of).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn sources(pods: &[Pod], container: Option<&str>) -> Vec<Source> {
    let of_pod = |pod: &Pod| -> Vec<Source> {
        let names = names_of(pod).filter(|name| container.is_none_or(|wanted| wanted == *name));
        let source = |name: &str| Source {
            pod: pod.name_any(),
            container: name.to_owned(),
        };
        names.map(source).collect()
    };
    pods.iter().flat_map(of_pod).collect()
}

/// The lines of one container. One that has none to give, as before its start, says so and is no reason to keep the
/// others back.
fn lines(
    pods: &Api<Pod>,
    source: &Source,
    wanted: &LogArguments,
    several: bool,
) -> impl futures::Stream<Item = Result<String>> {
    let params = LogParams {
        container: Some(source.container.clone()),
        follow: wanted.follow,
        previous: wanted.previous,
        tail_lines: wanted.tail,
        since_seconds: wanted.since.map(|since| since.seconds),
        ..LogParams::default()
    };
    let (pods, pod) = (pods.clone(), source.pod.clone());
    let from = format!("{}/{}", source.pod, source.container);
    let opened = async move { pods.log_stream(&pod, &params).await };
    stream::once(opened).flat_map(move |opened| {
        let from = from.clone();
        match opened {
            Ok(reader) => {
                let marked = move |line| {
                    if several {
                        format!("[{from}] {line}\n")
                    } else {
                        format!("{line}\n")
                    }
                };
                let lines = reader.lines().map_ok(marked);
                lines
                    .map(|line| line.context("reading a log"))
                    .left_stream()
            }
            Err(error) => {
                note(&format!("[{from}] {:#}", explain(error)));
                stream::empty().right_stream()
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, containers: &[&str]) -> Pod {
        let containers: Vec<_> = containers
            .iter()
            .map(|name| json!({ "name": name }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "containers": containers, "initContainers": [{ "name": "first" }] },
        }))
        .unwrap()
    }

    #[test]
    fn every_container_of_every_pod_or_the_one_asked_for() {
        let pods = [
            pod("a", &["kube-apiserver", "kube-scheduler"]),
            pod("b", &["kube-apiserver"]),
        ];
        assert_eq!(sources(&pods, None).len(), 5);
        let wanted = sources(&pods, Some("kube-scheduler"));
        let expected = Source {
            pod: "a".to_owned(),
            container: "kube-scheduler".to_owned(),
        };
        assert_eq!(wanted, [expected]);
        assert!(sources(&pods, Some("etcd")).is_empty());
        assert_eq!(
            containers(&pods),
            ["first", "kube-apiserver", "kube-scheduler"]
        );
    }
}
