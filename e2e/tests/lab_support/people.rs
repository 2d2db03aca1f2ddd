//! Kubeconfigs that a generator makes, used by the kubectl of the tenant's release.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use stoker_api::v1alpha1::KubeconfigGenerator;
use stoker_lab::command::{program, run};

use crate::world::{World, eventually, text};

const TENANT: &str = "people";
const GENERATOR: &str = "auditors";
const SOON: Duration = Duration::from_secs(20);

/// The user and the groups are those asked for and no others; what they may do is RBAC's; access ends with it at once, and
/// the Secret with its generator.
pub(crate) async fn a_generated_kubeconfig_is_of_exactly_its_user_and_groups(
    world: &World,
) -> Result<()> {
    let generators: Api<KubeconfigGenerator> = Api::all(world.management.clone());
    let generator = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "KubeconfigGenerator",
        "metadata": { "name": GENERATOR },
        "spec": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": TENANT } },
            "user": { "stringValue": "auditor@example.com" },
            "groups": [{ "stringValue": "auditors" }, { "fromDefinition": "metadata.name" }],
            "controlPlaneEndpointFrom": "admin.conf",
        },
    });
    let params = PatchParams::apply("e2e").force();
    let patch = Patch::Apply(generator);
    generators.patch(GENERATOR, &params, &patch).await?;
    let admin = world.tenant(TENANT).await?;
    let secrets = world.secrets(TENANT);
    let name = format!("{TENANT}-{GENERATOR}");
    let kubeconfig = eventually(SOON, "the kubeconfig is there", async || {
        text(&secrets.get(&name).await?, "value")
    })
    .await?;

    let kubectl = Kubectl::new(world, &kubeconfig).await?;
    let said = kubectl.says(&["auth", "whoami", "--output=json"]).await?;
    let said: Value = serde_json::from_str(&said).context("reading kubectl's answer")?;
    let user = &said["status"]["userInfo"];
    ensure!(user["username"] == "auditor@example.com", "it is {user}");
    ensure!(
        user["groups"] == json!(["auditors", TENANT, "system:authenticated"]),
        "its groups: {user}"
    );
    println!("kubectl auth whoami: {user}");

    let pods = ["get", "pods", "--all-namespaces"];
    let refused = kubectl
        .says(&pods)
        .await
        .err()
        .context("it may list pods")?;
    ensure!(format!("{refused:#}").contains("forbidden"), "{refused:#}");
    bind(&admin.client).await?;
    eventually(SOON, "its group may list pods", async || {
        kubectl.says(&pods).await
    })
    .await?;

    // Access ends by RBAC at once, for copies too; the Secret goes with its generator.
    let bindings: Api<ClusterRoleBinding> = Api::all(admin.client.clone());
    bindings.delete(GENERATOR, &DeleteParams::default()).await?;
    eventually(SOON, "it may list pods no more", async || {
        ensure!(kubectl.says(&pods).await.is_err(), "it still may");
        Ok(())
    })
    .await?;
    generators
        .delete(GENERATOR, &DeleteParams::default())
        .await?;
    eventually(SOON, "the generator is gone", async || {
        ensure!(
            generators.get_opt(GENERATOR).await?.is_none(),
            "it is there"
        );
        Ok(())
    })
    .await?;
    ensure!(secrets.get_opt(&name).await?.is_none(), "{name} is there");
    world.delete(TENANT).await
}

/// Auditors may view.
async fn bind(tenant: &Client) -> Result<()> {
    let bindings: Api<ClusterRoleBinding> = Api::all(tenant.clone());
    let binding = serde_json::from_value(json!({
        "metadata": { "name": GENERATOR },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "auditors" }],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// kubectl with a kubeconfig.
struct Kubectl {
    binary: std::path::PathBuf,
    kubeconfig: tempfile::NamedTempFile,
}

impl Kubectl {
    async fn new(world: &World, kubeconfig: &str) -> Result<Self> {
        let release = world.lab.kubernetes();
        let binaries = world.lab.upstream().kubernetes(release).await?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), kubeconfig)?;
        Ok(Self {
            binary: binaries.join("kubectl"),
            kubeconfig: file,
        })
    }

    async fn says(&self, arguments: &[&str]) -> Result<String> {
        let mut command = program(&self.binary, ["--kubeconfig"]);
        command.arg(self.kubeconfig.path()).args(arguments);
        run(&mut command).await
    }
}
