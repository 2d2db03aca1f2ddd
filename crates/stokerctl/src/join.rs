//! How a machine gets into a tenant: a bootstrap token, and the line that uses it.

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use stoker_control_plane::entry::ADMIN;
use stoker_pki::ca_hash;
use time::OffsetDateTime;

use crate::access::{Door, Wanted, default_user};
use crate::connect::{Target, explain};
use crate::duration::Length;
use crate::print::{note, out};

/// Of a token (`k8s.io/cluster-bootstrap/token/api`): `[a-z0-9]{6}.[a-z0-9]{16}`.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const SHORTEST: i64 = 60;
/// A token that outlives everybody is a standing invitation, seconds.
const LONGEST: i64 = 365 * 24 * 3600;
/// Is not asked again and again: a person waits.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What lets machines in.
struct Token {
    id: String,
    secret: String,
}

/// Prints a `kubeadm join` command.
///
/// # Errors
/// The tenant cannot be reached, or has no address yet.
pub(crate) async fn join(target: &Target, tenant: &str, ttl: Length) -> Result<()> {
    ensure!(
        (SHORTEST..=LONGEST).contains(&ttl.seconds),
        "--ttl: from 1m to 365d"
    );
    let connection = target.connect().await?;
    let tenant = connection.tenant(tenant).await?;
    let door = Door::of(&connection, &tenant, ADMIN).await?;
    let wanted = Wanted {
        user: default_user(&connection.client).await?,
        groups: vec!["kubeadm:cluster-admins".to_owned()],
        lifetime: "10m".parse().map_err(anyhow::Error::msg)?,
    };
    let (kubeconfig, _) = door.open(&wanted, OffsetDateTime::now_utc())?;
    let token = Token {
        id: random(6)?,
        secret: random(16)?,
    };
    let end = Timestamp::now() + SignedDuration::from_secs(ttl.seconds);
    let secret = token.object(end, &wanted.user);
    let secrets: Api<Secret> = Api::namespaced(inside(&kubeconfig).await?, "kube-system");
    let created = secrets.create(&PostParams::default(), &secret).await;
    created
        .map_err(explain)
        .with_context(|| format!("making a token in the tenant at {}", door.place.server))?;
    note(&format!(
        "on each machine, as root; machines get in until {end:.0}"
    ));
    out(&command(
        &door.place.server,
        &token,
        &ca_hash(door.authority())?,
    ))
}

async fn inside(kubeconfig: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    Ok(Client::try_from(config)?)
}

fn command(server: &str, token: &Token, hash: &str) -> String {
    let address = server.trim_start_matches("https://");
    format!(
        "kubeadm join {address} --token {}.{} --discovery-token-ca-cert-hash {hash}\n",
        token.id, token.secret
    )
}

impl Token {
    /// As kubeadm stores it; kube-controller-manager removes it when it has ended.
    fn object(&self, end: Timestamp, maker: &str) -> Secret {
        let object = json!({
            "metadata": { "name": format!("bootstrap-token-{}", self.id), "namespace": "kube-system" },
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": self.id,
                "token-secret": self.secret,
                "expiration": format!("{end:.0}"),
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
                "description": format!("stokerctl join, by {maker}"),
            },
        });
        // It is written as a Secret is.
        serde_json::from_value(object).unwrap_or_default()
    }
}

fn random(length: usize) -> Result<String> {
    let mut text = String::new();
    while text.len() < length {
        let mut byte = [0];
        getrandom::fill(&mut byte).context("the operating system gives no randomness")?;
        // Every letter as likely as any other: what is beyond seven alphabets is drawn again.
        if usize::from(byte[0]) < LETTERS.len() * 7 {
            text.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_kubeadms() {
        let token = Token {
            id: "abcdef".to_owned(),
            secret: "0123456789abcdef".to_owned(),
        };
        let said = command("https://[fd00::1]:6443", &token, "sha256:00");
        assert_eq!(
            said,
            "kubeadm join [fd00::1]:6443 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash sha256:00\n"
        );
    }

    #[test]
    fn the_token_is_as_the_api_server_reads_it() {
        let token = Token {
            id: random(6).unwrap(),
            secret: random(16).unwrap(),
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        assert!(token.id.chars().all(plain) && token.secret.chars().all(plain));
        let end = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
        let secret = token.object(end, "ann");
        let data = secret.string_data.unwrap();
        // Go's RFC 3339 reads it; kubeadm writes no fraction.
        assert_eq!(data["expiration"], "2026-01-01T00:00:00Z");
        assert_eq!(secret.type_.unwrap(), "bootstrap.kubernetes.io/token");
        assert_eq!(
            secret.metadata.name.unwrap(),
            format!("bootstrap-token-{}", data["token-id"])
        );
    }
}
