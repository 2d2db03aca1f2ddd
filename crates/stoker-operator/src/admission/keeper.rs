//! Keeps the webhook's certificates: in the Secret, and in what API servers trust. Runs on the replica that leads.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::json;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::authority::{Kept, Names, next};
use super::{CONFIGURATION, SECRET};
use crate::FIELD_MANAGER;

/// Time for every API server to learn of a new bundle. They watch it, and learn within a second.
const SETTLING: Duration = Duration::from_secs(30);
/// Between attempts after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Longest time between looks: no timer is trusted for months.
const LONGEST: Duration = Duration::from_hours(24);

type Configuration = ValidatingWebhookConfiguration;

/// Keeps the certificates for ever. Without the configuration there is nothing to keep.
pub async fn keep(client: Client, namespace: String) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let configurations: Api<Configuration> = Api::all(client);
    let seen = watcher::watch_object(secrets.clone(), SECRET).default_backoff();
    let mut seen = std::pin::pin!(seen);
    let asked = watcher::watch_object(configurations.clone(), CONFIGURATION).default_backoff();
    let mut asked = std::pin::pin!(asked);
    let mut keeper = Keeper {
        secrets,
        configurations,
        secret: None,
        looked: false,
        configuration: None,
        bundled: None,
    };
    let mut wait = LONGEST;
    loop {
        tokio::select! {
            Some(event) = seen.next() => {
                if let Some(Now(secret)) = told("Secret", event) {
                    keeper.secret = secret;
                    keeper.looked = true;
                }
            }
            Some(event) = asked.next() => {
                if let Some(Now(found)) = told("ValidatingWebhookConfiguration", event) {
                    keeper.configuration = found;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        wait = match keeper.pass().await {
            Ok(wait) => wait.min(LONGEST),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the webhook's certificates are not kept");
                RETRY
            }
        };
    }
}

/// An object as it is now, if there is one.
struct Now<K>(Option<K>);

fn told<K>(kind: &str, event: watcher::Result<Option<K>>) -> Option<Now<K>> {
    let event = event.map(Now);
    event
        .inspect_err(|error| tracing::warn!(kind, error = %error, "watch broken, resuming"))
        .ok()
}

struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<Configuration>,
    secret: Option<Secret>,
    /// Whether the Secret was looked for yet.
    looked: bool,
    configuration: Option<Configuration>,
    /// The bundle that the configuration has, and since when.
    bundled: Option<(String, Instant)>,
}

impl Keeper {
    /// Does what is due, and returns when to look again if nothing happens.
    async fn pass(&mut self) -> anyhow::Result<Duration> {
        let names = self.configuration.as_ref().map(names).unwrap_or_default();
        if !self.looked || names == Names::default() {
            return Ok(LONGEST);
        }
        let now = OffsetDateTime::now_utc();
        let kept = self.secret.as_ref().and_then(Kept::read);
        let trusted = match (&kept, &self.bundled) {
            (Some(kept), Some((bundle, since))) => {
                *bundle == kept.bundle() && since.elapsed() >= SETTLING
            }
            _ => false,
        };
        let decided = next(kept, &names, trusted, now)?;
        if let Some(done) = decided.done {
            self.write(&decided.kept).await?;
            tracing::info!(secret = SECRET, done, "the webhook's certificates");
        }
        let bundle = decided.kept.bundle();
        self.trust(&bundle).await?;
        let due = Duration::try_from(decided.look_again - now).unwrap_or(RETRY);
        let settled = self.bundled.as_ref().map_or(SETTLING, |(_, since)| {
            SETTLING.saturating_sub(since.elapsed()) + Duration::from_millis(1)
        });
        Ok(if decided.kept.waits() {
            settled.min(due)
        } else {
            due
        })
    }

    /// In the version that was read: of two that write, one fails and looks again.
    async fn write(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let written = if let Some(secret) = &self.secret {
            let patch = Patch::Merge(json!({
                "metadata": { "resourceVersion": secret.metadata.resource_version },
                "data": kept.entries(),
            }));
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            self.secrets.patch(SECRET, &params, &patch).await?
        } else {
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            self.secrets.create(&params, &secret(kept)).await?
        };
        self.secret = Some(written);
        Ok(())
    }

    /// Has API servers trust `bundle`, and notes since when they are told to.
    async fn trust(&mut self, bundle: &str) -> anyhow::Result<()> {
        let Some(configuration) = &self.configuration else {
            return Ok(());
        };
        let wanted = ByteString(bundle.as_bytes().to_vec());
        let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
        let is_told = |client: &WebhookClientConfig| client.ca_bundle.as_ref() == Some(&wanted);
        if !webhooks
            .iter()
            .all(|webhook| is_told(&webhook.client_config))
        {
            self.bundled = None;
            let webhooks: Vec<_> = webhooks
                .iter()
                .map(|webhook| {
                    json!({ "name": webhook.name, "clientConfig": { "caBundle": wanted } })
                })
                .collect();
            let patch = Patch::Apply(json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": { "name": CONFIGURATION },
                "webhooks": webhooks,
            }));
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let written = self.configurations.patch(CONFIGURATION, &params, &patch);
            self.configuration = Some(written.await?);
            tracing::info!(
                configuration = CONFIGURATION,
                "the webhook's authority is trusted"
            );
        }
        if self
            .bundled
            .as_ref()
            .is_none_or(|(known, _)| known != bundle)
        {
            self.bundled = Some((bundle.to_owned(), Instant::now()));
        }
        Ok(())
    }
}

fn secret(kept: &Kept) -> Secret {
    let entries = kept.entries().into_iter();
    let data = entries.filter_map(|(name, bytes)| Some((name.to_owned(), bytes?)));
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        ..Secret::default()
    }
}

/// What API servers dial, by Service or by URL.
fn names(configuration: &Configuration) -> Names {
    let mut names = Names::default();
    for webhook in configuration.webhooks.iter().flatten() {
        let client = &webhook.client_config;
        if let Some(service) = &client.service {
            names
                .dns
                .push(format!("{}.{}.svc", service.name, service.namespace));
        }
        let url = client
            .url
            .as_deref()
            .and_then(|url| url.parse::<http::Uri>().ok());
        if let Some(host) = url.as_ref().and_then(http::Uri::host) {
            match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) => names.ips.push(ip),
                Err(_) => names.dns.push(host.to_owned()),
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(clients: &serde_json::Value) -> Configuration {
        let clients = clients.as_array().unwrap().iter();
        let webhooks: Vec<_> = clients
            .map(|client| {
                json!({
                    "name": "a.stoker.dev", "clientConfig": client,
                    "admissionReviewVersions": ["v1"], "sideEffects": "None",
                })
            })
            .collect();
        serde_json::from_value(json!({ "webhooks": webhooks })).unwrap()
    }

    #[test]
    fn the_certificate_is_for_whatever_api_servers_dial() {
        let names = names(&configuration(&json!([
            { "service": { "name": "hook", "namespace": "stoker-system" } },
            { "url": "https://127.0.0.1:9443/validate" },
            { "url": "https://[2001:db8::1]:9443/validate" },
            { "url": "https://hook.example.com/validate" },
        ])));
        assert_eq!(names.dns, ["hook.stoker-system.svc", "hook.example.com"]);
        let ips: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(names.ips, ips);
        assert_eq!(super::names(&configuration(&json!([]))), Names::default());
    }
}
