//! Which cluster, and what to do when it does not answer.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use stoker_api::v1alpha1::TenantControlPlane;

/// The management cluster, as kubectl finds it.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The kubeconfig of the management cluster; else KUBECONFIG, else `~/.kube/config`.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// A context of it other than the current one.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace of the tenant; else the context's.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
}

/// The management cluster, and a namespace there.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Given or the context's.
    pub(crate) namespace: String,
}

impl Target {
    /// The namespace, if one was given.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Reads the kubeconfig. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path)
                    .with_context(|| format!("reading {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.context(
            "no usable kubeconfig of the management cluster: set KUBECONFIG, or give --kubeconfig and --context",
        )?;
        let namespace = self.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Connection { client, namespace })
    }
}

impl Connection {
    /// A tenant of the namespace.
    ///
    /// # Errors
    /// It is not there, or may not be read.
    pub(crate) async fn tenant(&self, name: &str) -> Result<TenantControlPlane> {
        let namespace = &self.namespace;
        let tenants: Api<TenantControlPlane> = Api::namespaced(self.client.clone(), namespace);
        let found = tenants.get_opt(name).await.map_err(explain)?;
        found.ok_or_else(|| {
            anyhow!("no TenantControlPlane {name} in namespace {namespace}: `stokerctl list` has all of them, -n names another namespace")
        })
    }
}

/// What the API server said, and what to do about it.
pub(crate) fn explain(error: kube::Error) -> anyhow::Error {
    let advice = match &error {
        kube::Error::Api(status) if status.code == 401 => {
            "your credentials are not accepted: get a new kubeconfig of the management cluster"
        }
        kube::Error::Api(status) if status.is_forbidden() => {
            "ask an administrator of the management cluster for this right, or use another context"
        }
        kube::Error::Api(status) if status.code == 404 && status.details.is_none() => {
            "this cluster does not serve stoker.dev/v1alpha1: is it the management cluster, with Stoker installed? See --context"
        }
        kube::Error::Api(_) => return anyhow!(error),
        kube::Error::Auth(_) => "the kubeconfig's way to log in failed: log in again",
        _ => {
            "is the management cluster reachable from here? Try `kubectl version` with the same kubeconfig"
        }
    };
    anyhow!(error).context(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status {
            code,
            reason: reason.to_owned(),
            message: "said".to_owned(),
            ..Status::default()
        }))
    }

    #[test]
    fn every_refusal_says_what_to_do_and_what_the_server_said() {
        let cases = [
            (api(401, "Unauthorized"), "credentials"),
            (api(403, "Forbidden"), "administrator"),
            (api(404, "NotFound"), "management cluster, with Stoker"),
        ];
        for (error, advice) in cases {
            let text = format!("{:#}", explain(error));
            assert!(text.contains(advice) && text.contains("said"), "{text}");
        }
    }
}
