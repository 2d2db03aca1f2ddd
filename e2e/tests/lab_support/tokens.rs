//! `JoinToken`s, and the program that is run on a machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use stoker_api::v1alpha1::JoinToken;
use stoker_lab::command::{cargo, run};

use crate::world::{World, eventually, text};

/// Those of a tenant.
pub(crate) fn of(world: &World, tenant: &str) -> Api<JoinToken> {
    Api::namespaced(world.management.clone(), tenant)
}

/// Builds `stoker-node` where the test run did not.
pub(crate) async fn built() -> Result<PathBuf> {
    let build = cargo(["build", "--quiet", "--package", "stoker-node"]);
    run(&mut build.into()).await?;
    let test = std::env::current_exe().context("finding this program")?;
    let directory = test.parent().and_then(|deps| deps.parent());
    Ok(directory
        .context("a program in target")?
        .join("stoker-node"))
}

/// What is typed on the machine, of a new token in place of one that is there: that one may be used up.
pub(crate) async fn issue(world: &World, tenant: &str, name: &str, spec: &Value) -> Result<String> {
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
        "metadata": { "name": name }, "spec": spec,
    });
    object["spec"]["tenantControlPlane"] = json!(tenant);
    let params = PatchParams::apply("e2e").force();
    let tokens = of(world, tenant);
    let limit = Duration::from_mins(1);
    eventually(limit, "the token of before is gone", async || {
        if tokens.get_opt(name).await?.is_some() {
            tokens.delete(name, &DeleteParams::default()).await?;
            bail!("it is there");
        }
        Ok(())
    })
    .await?;
    tokens.patch(name, &params, &Patch::Apply(object)).await?;
    let secret: Secret = eventually(limit, "the token is there", async || {
        let status = tokens.get(name).await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        let ready = conditions.any(|found| found.type_ == "Ready" && found.status == "True");
        ensure!(ready, "{:?}", status.conditions);
        let secret = status.secret_name.context("no Secret")?;
        Ok(world.secrets(tenant).get(&secret).await?)
    })
    .await?;
    text(&secret, "token")
}
