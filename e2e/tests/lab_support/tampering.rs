//! A tenant's administrator owns everything inside the tenant; what Stoker put there comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::world::{Tenant, World, eventually};

/// The goal is 2 s; a machine that does much else may take longer without the test lying.
const PATIENCE: Duration = Duration::from_secs(15);
const GOAL: Duration = Duration::from_secs(2);

pub(crate) async fn what_a_tenant_admin_deletes_or_changes_comes_back(world: &World) -> Result<()> {
    let tenant = world.main_tenant().await?;
    let mut took = Vec::new();
    for (resource, object) in ours(&tenant).await? {
        let name = format!("{} {}", resource.kind, object.name_any());
        let objects = api(&tenant, &resource, &object);
        objects
            .delete(&object.name_any(), &DeleteParams::default())
            .await
            .context(name.clone())?;
        let begun = Instant::now();
        eventually(PATIENCE, &format!("{name} is back"), async || {
            let found = objects.get_metadata(&object.name_any()).await?;
            ensure!(found.uid() != object.uid(), "it is still the old one");
            Ok(())
        })
        .await?;
        took.push((begun.elapsed(), format!("{name} deleted")));
    }
    ensure!(
        took.len() >= 15,
        "only {} objects of ours were found in the tenant",
        took.len()
    );
    for change in changes() {
        took.push((
            change.revert(&tenant).await?,
            format!("{} changed", change.what),
        ));
    }
    // And it works again: both add-ons' pods are ready.
    for addon in ["deployment/coredns", "daemonset/kube-proxy"] {
        let lab = &world.lab;
        lab.rolled_out(&tenant.name, "kube-system", addon).await?;
    }
    took.sort();
    let median = took[took.len() / 2].0;
    for (time, what) in took.iter().rev().take(3) {
        println!("healed after {time:.1?}: {what}");
    }
    println!("{} objects healed, median {median:.1?}", took.len());
    ensure!(
        median <= GOAL,
        "healing took {median:?} at the median, more than {GOAL:?}"
    );
    Ok(())
}

fn kinds() -> Vec<ApiResource> {
    vec![
        // First: pods that run keep tokens of the service account that is gone, so their owners follow below.
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Endpoints>(&()),
        ApiResource::erase::<EndpointSlice>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
        ApiResource::erase::<ClusterRole>(&()),
        // The administrator's own rights go with one of these, and come back.
        ApiResource::erase::<ClusterRoleBinding>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<DaemonSet>(&()),
    ]
}

/// Everything inside the tenant that carries our label.
async fn ours(tenant: &Tenant) -> Result<Vec<(ApiResource, DynamicObject)>> {
    let mut found = Vec::new();
    for resource in kinds() {
        let all: Api<DynamicObject> = Api::all_with(tenant.client.clone(), &resource);
        let labelled = ListParams::default().labels("app.kubernetes.io/managed-by=stoker");
        // The endpoints of our Services carry their labels too, and are the endpoint controller's.
        let owned = |object: &DynamicObject| {
            let controlled = !object.owner_references().is_empty();
            !controlled && (resource.kind != "Endpoints" || object.name_any() == "kubernetes")
        };
        for object in all.list(&labelled).await?.items.into_iter().filter(owned) {
            found.push((resource.clone(), object));
        }
    }
    for wanted in [
        "coredns",
        "kube-proxy",
        "kubelet-config",
        "kubeadm-config",
        "cluster-info",
        "kubernetes",
    ] {
        ensure!(
            found.iter().any(|(_, object)| object.name_any() == wanted),
            "{wanted} does not carry our label, or is not there"
        );
    }
    Ok(found)
}

fn api(tenant: &Tenant, resource: &ApiResource, object: &DynamicObject) -> Api<DynamicObject> {
    match object.namespace() {
        Some(namespace) => Api::namespaced_with(tenant.client.clone(), &namespace, resource),
        None => Api::all_with(tenant.client.clone(), resource),
    }
}

/// A change by hand, by merge patch, and the place that must get its value back.
struct Change {
    what: &'static str,
    resource: ApiResource,
    namespace: &'static str,
    name: &'static str,
    patch: Value,
    place: &'static str,
}

fn changes() -> [Change; 5] {
    [
        Change {
            what: "the service account of CoreDNS",
            resource: ApiResource::erase::<Deployment>(&()),
            namespace: "kube-system",
            name: "coredns",
            patch: json!({ "spec": { "template": { "spec": { "serviceAccountName": "default" } } } }),
            place: "/spec/template/spec/serviceAccountName",
        },
        Change {
            what: "the label by which Stoker finds CoreDNS",
            resource: ApiResource::erase::<Deployment>(&()),
            namespace: "kube-system",
            name: "coredns",
            patch: json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "me" } } }),
            place: "/metadata/labels/app.kubernetes.io~1managed-by",
        },
        Change {
            what: "kubelet-config",
            resource: ApiResource::erase::<ConfigMap>(&()),
            namespace: "kube-system",
            name: "kubelet-config",
            patch: json!({ "data": { "kubelet": "kind: Nonsense" } }),
            place: "/data/kubelet",
        },
        Change {
            what: "the kubernetes Endpoints",
            resource: ApiResource::erase::<Endpoints>(&()),
            namespace: "default",
            name: "kubernetes",
            patch: json!({ "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "name": "https", "port": 1 }] }] }),
            place: "/subsets/0/addresses/0/ip",
        },
        Change {
            what: "cluster-info",
            resource: ApiResource::erase::<ConfigMap>(&()),
            namespace: "kube-public",
            name: "cluster-info",
            patch: json!({ "data": { "kubeconfig": "" } }),
            place: "/data/kubeconfig",
        },
    ]
}

impl Change {
    async fn revert(&self, tenant: &Tenant) -> Result<Duration> {
        let objects: Api<DynamicObject> =
            Api::namespaced_with(tenant.client.clone(), self.namespace, &self.resource);
        let look = async || -> Result<Value> {
            let object = serde_json::to_value(objects.get(self.name).await?)?;
            object.pointer(self.place).cloned().context("nothing there")
        };
        let right = look().await.with_context(|| self.what)?;
        let params = PatchParams {
            field_manager: Some("admin".into()),
            ..PatchParams::default()
        };
        let changed = objects
            .patch(self.name, &params, &Patch::Merge(&self.patch))
            .await?;
        let changed = serde_json::to_value(changed)?;
        if changed.pointer(self.place) == Some(&right) {
            bail!("the change of {} changes nothing", self.what);
        }
        let begun = Instant::now();
        eventually(
            PATIENCE,
            &format!("{} is as it was", self.what),
            async || {
                let found = look().await?;
                ensure!(found == right, "it is {found}");
                Ok(())
            },
        )
        .await?;
        Ok(begun.elapsed())
    }
}
