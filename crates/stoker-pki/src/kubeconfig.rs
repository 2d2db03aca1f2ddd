use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, KeyedCertificate, PrivateKey};

/// A kubeconfig with one cluster, one user and one context, named `<user>@<cluster>` as kubeadm does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeconfigRequest {
    /// Name of the cluster entry.
    pub cluster: String,
    /// URL of the API server, `https://host:port`.
    pub server: String,
    /// Name to expect in the server's certificate instead of the URL's host.
    pub tls_server_name: Option<String>,
    /// PEM of the authority that the server's certificate is checked against.
    pub authority: String,
    /// Name of the user entry; the API server takes the user's name from the certificate.
    pub user: String,
    /// How the user authenticates.
    pub credentials: KubeconfigCredentials,
}

/// Where a kubeconfig has its client certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeconfigCredentials {
    /// In the kubeconfig. The client reads them once, at its start.
    Inline(KeyedCertificate),
    /// In files beside it. client-go reloads them when they change.
    Files {
        /// Path of the certificate, as the client sees it.
        certificate: String,
        /// Path of the private key, as the client sees it.
        key: String,
    },
}

/// Renders a kubeconfig as YAML; equal requests give equal bytes.
#[must_use]
pub fn kubeconfig(request: &KubeconfigRequest) -> String {
    let cluster = quoted(&request.cluster);
    let user = quoted(&request.user);
    let context = quoted(&format!("{}@{}", request.user, request.cluster));
    let server = quoted(&request.server);
    let authority = encoded(&request.authority);
    let server_name = match &request.tls_server_name {
        Some(name) => format!("\n    tls-server-name: {}", quoted(name)),
        None => String::new(),
    };
    let credentials = match &request.credentials {
        KubeconfigCredentials::Inline(leaf) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            encoded(&leaf.certificate),
            encoded(leaf.key.as_pem()),
        ),
        KubeconfigCredentials::Files { certificate, key } => format!(
            "client-certificate: {}\n    client-key: {}",
            quoted(certificate),
            quoted(key)
        ),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    certificate-authority-data: {authority}
    server: {server}{server_name}
contexts:
- name: {context}
  context:
    cluster: {cluster}
    user: {user}
current-context: {context}
users:
- name: {user}
  user:
    {credentials}
"
    )
}

/// A JSON string, which is a YAML string too, whatever is in it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn encoded(text: &str) -> String {
    quoted(&STANDARD.encode(text))
}

/// What an existing kubeconfig's current context says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeconfigFacts {
    /// Name of the cluster entry.
    pub cluster: String,
    /// URL of the API server.
    pub server: String,
    /// Name to expect in the server's certificate instead of the URL's host.
    pub tls_server_name: Option<String>,
    /// PEM of the authority that the server's certificate is checked against.
    pub authority: String,
    /// Name of the user entry.
    pub user: String,
    /// PEM of the inline client certificate, not checked: [`leaf_state`](crate::leaf_state) judges it.
    pub certificate: String,
    /// The inline private key.
    pub key: PrivateKey,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Reads the current context of a kubeconfig (YAML or JSON) with inline credentials.
///
/// # Errors
/// [`Error::ReadKubeconfig`], [`Error::KubeconfigLacks`], or as [`PrivateKey::from_pem`].
pub fn parse_kubeconfig(text: &str) -> Result<KubeconfigFacts, Error> {
    // The parser's own message quotes the text around the mistake, which may be the key.
    let config: Config = serde_saphyr::from_str(text).map_err(|error| Error::ReadKubeconfig {
        line: error.location().map_or(0, |location| location.line()),
    })?;
    let context = config
        .contexts
        .into_iter()
        .find(|context| context.name == config.current_context)
        .ok_or(Error::KubeconfigLacks("entry in contexts"))?
        .context;
    let cluster = config
        .clusters
        .into_iter()
        .find(|cluster| cluster.name == context.cluster)
        .ok_or(Error::KubeconfigLacks("cluster"))?
        .cluster;
    let user = config
        .users
        .into_iter()
        .find(|user| user.name == context.user)
        .ok_or(Error::KubeconfigLacks("user"))?
        .user;
    let key = decoded(user.client_key_data, "client-key-data")?;
    Ok(KubeconfigFacts {
        cluster: context.cluster,
        server: cluster.server.ok_or(Error::KubeconfigLacks("server"))?,
        tls_server_name: cluster.tls_server_name,
        authority: decoded(
            cluster.certificate_authority_data,
            "certificate-authority-data",
        )?,
        user: context.user,
        certificate: decoded(user.client_certificate_data, "client-certificate-data")?,
        key: PrivateKey::from_pem(&key)?,
    })
}

fn decoded(data: Option<String>, field: &'static str) -> Result<String, Error> {
    let lacks = || Error::KubeconfigLacks(field);
    let bytes = STANDARD
        .decode(data.ok_or_else(lacks)?.trim())
        .map_err(|_| lacks())?;
    String::from_utf8(bytes).map_err(|_| lacks())
}
