//! The operator as a library in this process, with our layer around its clients. It dies with its runtime: no task of it
//! runs on, as after SIGKILL.

use std::sync::Arc;

use clap::Parser as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use stoker_kube::{RequestCounter, TenantEndpoint};
use stoker_operator::args::Args;
use stoker_operator::health::Health;
use stoker_operator::metrics::Metrics;
use tokio::runtime::Runtime;

use super::faults::Faults;
use super::inside;

/// A running operator; it dies when dropped.
pub(crate) struct InProcess {
    runtime: Option<Runtime>,
}

impl InProcess {
    /// Starts the operator on the cluster of `kubeconfig`.
    pub(crate) fn start(kubeconfig: &str, faults: &Faults) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (kubeconfig, faults) = (kubeconfig.to_owned(), faults.clone());
        runtime.spawn(async move {
            let ended = Box::pin(work(&kubeconfig, faults)).await;
            eprintln!("the operator ended: {ended:?}");
        });
        Self {
            runtime: Some(runtime),
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn work(kubeconfig: &str, faults: Faults) -> anyhow::Result<()> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = stoker_kube::management_client(config, Arc::new(|_, _, _| {}))?;
    let client = faults.around(client);
    let tenant_client = move |endpoint: &TenantEndpoint, counter: RequestCounter| {
        // `<name>.<namespace>.svc`
        let namespace = endpoint.server_name.split('.').nth(1).unwrap_or_default();
        let client = stoker_kube::tenant_client(endpoint, counter)?;
        Ok(faults.around_tenant(&inside::subject(namespace), client))
    };
    let args = Args::parse_from([
        "stoker-operator",
        "--leader-elect=false",
        "--management-cidrs=192.0.2.0/24",
        "--max-concurrent-reconciles=256",
    ]);
    let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
    let work = stoker_operator::run::work(args, client, Arc::new(tenant_client), metrics, health);
    Box::pin(work).await
}
