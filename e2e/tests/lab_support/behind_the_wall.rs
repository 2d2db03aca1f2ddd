//! Everything that an API server sends into its tenant's network arrives behind the wall, and by the tunnel alone.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::door::{get, send};
use crate::far_server::{API, PORT, SERVING, SIGN};
use crate::walled::{FAR, PROGRAM, Walled};
use crate::world::{World, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Far more than a line takes.
const LINE: Duration = Duration::from_secs(15);

pub(crate) async fn every_call_of_an_api_server_arrives_behind_the_wall(
    world: &World,
) -> Result<()> {
    let walled = Walled::of(world).await?;
    walled.proved().await?;
    logs_and_exec(&walled).await?;
    typed(&walled, &["exec", "-i", FAR, "--", PROGRAM, "far", "echo"]).await?;
    typed(&walled, &["attach", "-i", FAR]).await?;
    port_forward(&walled).await?;
    proxies(&walled).await?;
    admission(&walled).await?;
    conversion(&walled).await?;
    aggregation(&walled).await?;
    let dialled = walled.dialled().await?;
    println!("connections to the node, its pods and Services that met the wall: {dialled}");
    ensure!(dialled == 0, "the node was dialled");
    Ok(())
}

async fn logs_and_exec(walled: &Walled<'_>) -> Result<()> {
    let logs = walled.kubectl(&["logs", FAR]).await?;
    ensure!(logs.contains(SERVING), "the log is {logs:?}");
    let begun = Instant::now();
    let exec = ["exec", FAR, "--", PROGRAM, "far", "zeros", "8"];
    let zeros = walled.kubectl(&exec).await?;
    println!(
        "{} MiB by kubectl exec in {:.1?}",
        zeros.len() >> 20,
        begun.elapsed()
    );
    ensure!(zeros.len() == 8 << 20, "{} bytes came", zeros.len());
    Ok(())
}

/// A line that is typed comes back.
async fn typed(walled: &Walled<'_>, arguments: &[&str]) -> Result<()> {
    let mut kubectl = walled
        .kubectl_command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut typing = kubectl.stdin.take().context("no input")?;
    let mut lines = lines(&mut kubectl)?;
    // A kubectl that is not attached yet keeps it.
    typing.write_all(b"hello\n").await?;
    typing.flush().await?;
    loop {
        let line = timeout(LINE, lines.next_line()).await;
        let line = line.with_context(|| format!("{arguments:?} says nothing"))??;
        let line = line.with_context(|| format!("{arguments:?} ended"))?;
        if line.trim() == "echo hello" {
            return Ok(());
        }
    }
}

fn lines(child: &mut Child) -> Result<tokio::io::Lines<BufReader<ChildStdout>>> {
    let out = child.stdout.take().context("no output")?;
    Ok(BufReader::new(out).lines())
}

async fn port_forward(walled: &Walled<'_>) -> Result<()> {
    let forward = format!(":{PORT}");
    let mut kubectl = walled
        .kubectl_command(&["port-forward", "pod/far", &forward])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    // Kept: kubectl ends when nobody hears it.
    let mut lines = lines(&mut kubectl)?;
    let line = timeout(LINE, lines.next_line()).await??;
    let line = line.context("kubectl port-forward says nothing")?;
    let port = line
        .strip_prefix("Forwarding from 127.0.0.1:")
        .and_then(|rest| rest.split(' ').next())
        .with_context(|| format!("kubectl port-forward says {line}"))?;
    let mut socket = TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: far\r\n\r\n")
        .await?;
    let (mut answer, mut buffer) = (String::new(), Vec::new());
    let read = async {
        while !answer.contains(SIGN) && socket.read_buf(&mut buffer).await? > 0 {
            answer = String::from_utf8_lossy(&buffer).into_owned();
        }
        Ok::<_, std::io::Error>(())
    };
    timeout(LINE, read).await??;
    ensure!(answer.contains(SIGN), "the forwarded port says {answer:?}");
    Ok(())
}

async fn proxies(walled: &Walled<'_>) -> Result<()> {
    let client = &walled.tenant.client;
    let worker = walled.worker.name();
    for (path, says) in [
        (format!("/api/v1/nodes/{worker}/proxy/healthz"), "ok"),
        (
            format!("/api/v1/namespaces/default/pods/{FAR}:{PORT}/proxy/"),
            SIGN,
        ),
        (
            format!("/api/v1/namespaces/default/services/https:{FAR}:443/proxy/"),
            SIGN,
        ),
    ] {
        let answer = get(client, &path).await.with_context(|| path.clone())?;
        ensure!(answer.contains(says), "{path} says {answer:?}");
    }
    Ok(())
}

/// What leads an API server to the Service.
fn client_config(walled: &Walled<'_>, path: &str) -> Value {
    json!({
        "service": { "namespace": "default", "name": FAR, "port": 443, "path": path },
        "caBundle": STANDARD.encode(&walled.ca),
    })
}

/// Makes an object, and looks until it does its work; removes it.
async fn while_there(
    client: &Client,
    collection: &str,
    object: &Value,
    what: &str,
    look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let name = object["metadata"]["name"].as_str().context("a name")?;
    let path = format!("{collection}/{name}");
    // Of a run that was interrupted.
    let _ = send(client, Method::DELETE, &path, &json!({})).await;
    let begun = Instant::now();
    eventually(SOON, "the object is made", async || {
        send(client, Method::POST, collection, object)
            .await
            .map(drop)
    })
    .await?;
    eventually(SOON, what, look).await?;
    println!("{what}: seen after {:.1?}", begun.elapsed());
    send(client, Method::DELETE, &path, &json!({}))
        .await
        .map(drop)
}

async fn admission(walled: &Walled<'_>) -> Result<()> {
    let client = &walled.tenant.client;
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "far" },
        "webhooks": [{
            "name": "far.example.com", "clientConfig": client_config(walled, "/admit"),
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 10, "failurePolicy": "Fail",
            "objectSelector": { "matchLabels": { "asks": "far" } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }],
        }],
    });
    let asking = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "asks", "labels": { "asks": "far" } },
    });
    let collection = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let what = "an admission webhook of a Service";
    while_there(client, collection, &webhook, what, async || {
        let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
        let made = send(client, Method::POST, path, &asking).await?;
        ensure!(made["data"]["seen"] == SIGN, "not asked: {made}");
        Ok(())
    })
    .await
}

async fn conversion(walled: &Walled<'_>) -> Result<()> {
    let client = &walled.tenant.client;
    let schema = json!({ "openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
    } });
    let version = |name: &str, storage: bool| json!({ "name": name, "served": true, "storage": storage, "schema": schema });
    let kind = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "turnings.far.example.com" },
        "spec": {
            "group": "far.example.com", "scope": "Cluster",
            "names": { "plural": "turnings", "singular": "turning", "kind": "Turning", "listKind": "TurningList" },
            "versions": [version("v1", true), version("v2", false)],
            "conversion": { "strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": client_config(walled, "/convert"),
            } },
        },
    });
    let object = json!({
        "apiVersion": "far.example.com/v1", "kind": "Turning", "metadata": { "name": "one" }, "spec": {},
    });
    let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let what = "a conversion webhook of a Service";
    while_there(client, collection, &kind, what, async || {
        let path = "/apis/far.example.com/v1/turnings";
        if get(client, &format!("{path}/one")).await.is_err() {
            send(client, Method::POST, path, &object).await?;
        }
        let turned = get(client, "/apis/far.example.com/v2/turnings/one").await?;
        let turned: Value = serde_json::from_str(&turned)?;
        ensure!(
            turned["spec"]["converted"] == SIGN,
            "not converted: {turned}"
        );
        Ok(())
    })
    .await
}

async fn aggregation(walled: &Walled<'_>) -> Result<()> {
    let client = &walled.tenant.client;
    let (group, version) = API.split_once('/').context("an API with a version")?;
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": format!("{version}.{group}") },
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": { "namespace": "default", "name": FAR, "port": 443 },
            "caBundle": STANDARD.encode(&walled.ca),
        },
    });
    let collection = "/apis/apiregistration.k8s.io/v1/apiservices";
    let what = "an aggregated API";
    while_there(client, collection, &service, what, async || {
        let answer = get(client, &format!("/apis/{API}/answers/one")).await?;
        ensure!(answer.contains(SIGN), "it says {answer}");
        Ok(())
    })
    .await
}
