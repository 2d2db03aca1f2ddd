//! What runs in the tenant's pod: this test's own program, called as `lab_tunnel far TASK`. It answers what an API server asks
//! of its tenant's network: admission, conversion, an API of its own; and it sends back what streams bring.

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Where it answers with TLS, by the Service.
pub(crate) const TLS_PORT: u16 = 8443;
/// Where it answers without.
pub(crate) const PORT: u16 = 9000;
/// Where its certificate and key are.
pub(crate) const FILES: &str = "/tls";
/// Group and version of its API.
pub(crate) const API: &str = "answers.example.com/v1";
/// What its answers carry.
pub(crate) const SIGN: &str = "by the pod";
/// Before the host, and after a slash the port, that it sends to whoever asks there.
pub(crate) const ELSEWHERE: &str = "/elsewhere/";
/// The line that it prints when it serves.
pub(crate) const SERVING: &str = "serving";

/// Does a task until it is done.
pub(crate) fn run(task: &[String]) -> ExitCode {
    let words: Vec<_> = task.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve"] => serve(),
        ["echo"] => echo_lines(),
        ["zeros", mebibytes] => zeros(mebibytes),
        ["count"] => count(),
        _ => Err(anyhow::anyhow!("unknown task {words:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn echo_lines() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        println!("echo {}", line?);
    }
    Ok(())
}

fn zeros(mebibytes: &str) -> Result<()> {
    let block = vec![0; 1 << 20];
    let mut out = std::io::stdout().lock();
    for _ in 0..mebibytes.parse::<usize>()? {
        out.write_all(&block)?;
    }
    Ok(())
}

/// Says how many bytes came, once there are no more.
fn count() -> Result<()> {
    let mut input = std::io::stdin().lock();
    println!("{}", std::io::copy(&mut input, &mut std::io::sink())?);
    Ok(())
}

fn serve() -> Result<()> {
    // What is typed at `kubectl attach`.
    std::thread::spawn(echo_lines);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let tls = TlsAcceptor::from(Arc::new(tls()?));
        let (plain, secret) = tokio::try_join!(
            TcpListener::bind(("0.0.0.0", PORT)),
            TcpListener::bind(("0.0.0.0", TLS_PORT))
        )?;
        println!("{SERVING}");
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let (socket, _) = accepted?;
                    tokio::spawn(answer(socket));
                }
                accepted = secret.accept() => {
                    let (socket, _) = accepted?;
                    let tls = tls.clone();
                    tokio::spawn(async move { answer(tls.accept(socket).await?).await });
                }
            }
        }
    })
}

fn tls() -> Result<ServerConfig> {
    let chain = CertificateDer::from_pem_file(format!("{FILES}/tls.crt"))?;
    let key = PrivateKeyDer::from_pem_file(format!("{FILES}/tls.key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)?;
    Ok(config)
}

/// What was asked.
struct Question {
    /// Method and path.
    what: String,
    upgrades: bool,
    body: Vec<u8>,
}

async fn answer(socket: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut socket = BufStream::new(socket);
    while let Some(question) = question(&mut socket).await? {
        if question.upgrades {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            socket.flush().await?;
            let (mut read, mut write) = tokio::io::split(socket);
            tokio::io::copy(&mut read, &mut write).await?;
            return Ok(());
        }
        let (status, body) = match respond(&question) {
            Ok(body) => ("200 OK".to_owned(), body.to_string()),
            Err(error) => ("404 Not Found".to_owned(), format!("{error:#}")),
        };
        let status = elsewhere(&question).unwrap_or(status);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(body.as_bytes()).await?;
        socket.flush().await?;
    }
    Ok(())
}

async fn question(
    socket: &mut BufStream<impl AsyncRead + AsyncWrite + Unpin>,
) -> Result<Option<Question>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_ascii_lowercase()),
        }
    }
    let mut words = lines.first().context("no request")?.split(' ');
    let (method, path) = (words.next(), words.next().context("no path")?);
    let path = path.split('?').next().unwrap_or_default();
    let what = format!("{} {path}", method.unwrap_or_default());
    let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
    let length = header("content-length: ").map_or(Ok(0), str::parse)?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(Some(Question {
        what,
        upgrades: header("upgrade: ").is_some(),
        body,
    }))
}

/// Sends those who ask there to another place.
fn elsewhere(question: &Question) -> Option<String> {
    let (_, place) = question.what.split_once(ELSEWHERE)?;
    let (host, port) = place.split_once('/')?;
    Some(format!(
        "307 Temporary Redirect\r\nLocation: https://{host}:{port}/"
    ))
}

fn respond(question: &Question) -> Result<Value> {
    let (group, version) = API.split_once('/').context("an API with a version")?;
    let asked = question.what.as_str();
    match asked {
        "get /" => return Ok(json!(SIGN)),
        "post /admit" => return admit(&question.body),
        "post /convert" => return convert(&question.body),
        _ => {}
    }
    let resources = format!("get /apis/{group}/{version}");
    if asked == resources {
        return Ok(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API,
            "resources": [{
                "name": "answers", "singularName": "answer", "namespaced": false, "kind": "Answer", "verbs": ["get"],
            }],
        }));
    }
    match asked.strip_prefix(&format!("{resources}/answers/")) {
        Some(name) => Ok(json!({
            "kind": "Answer", "apiVersion": API, "metadata": { "name": name }, "answered": SIGN,
        })),
        None => bail!("nothing is at {asked}"),
    }
}

/// Allows everything, and writes into it.
fn admit(body: &[u8]) -> Result<Value> {
    let review: Value = serde_json::from_slice(body)?;
    let patch = json!([{ "op": "add", "path": "/data", "value": { "seen": SIGN } }]);
    Ok(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"], "allowed": true,
            "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string()),
        },
    }))
}

fn convert(body: &[u8]) -> Result<Value> {
    let mut review: Value = serde_json::from_slice(body)?;
    let request = review["request"].take();
    let objects = request["objects"].as_array().context("no objects")?.iter();
    let converted = objects.map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        object["spec"]["converted"] = json!(SIGN);
        object
    });
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {
            "uid": request["uid"], "result": { "status": "Success" },
            "convertedObjects": converted.collect::<Vec<_>>(),
        },
    }))
}
