//! What the CRDs accept, refuse and fill in, and whether the examples are such objects.

use std::time::{Duration, Instant};

use http::Method;
use kube::core::Status;
use kube::{Client, CustomResourceExt};
use serde_json::{Value, json};
use stoker_api::v1alpha1::{DataStore, JoinToken, KubeconfigGenerator, TenantControlPlane};
use stoker_lab::bare::BareApiServer;
use stoker_lab::versions::KubernetesVersion;

use crate::cases::{self, Case, Table};
use crate::{create, documents, send};

const TENANTS: &str = "/apis/stoker.dev/v1alpha1/namespaces/default/tenantcontrolplanes";
const DATA_STORES: &str = "/apis/stoker.dev/v1alpha1/datastores";
const GENERATORS: &str = "/apis/stoker.dev/v1alpha1/kubeconfiggenerators";
const TOKENS: &str = "/apis/stoker.dev/v1alpha1/namespaces/default/jointokens";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The API server with the CRDs served.
async fn server_with_crds(version: KubernetesVersion) -> (BareApiServer, Client) {
    let server = BareApiServer::start_version(version).await.unwrap();
    let client = server.client().await.unwrap();
    let crds = [
        TenantControlPlane::crd(),
        DataStore::crd(),
        KubeconfigGenerator::crd(),
        JoinToken::crd(),
    ];
    for crd in crds {
        create(&client, CRDS, &serde_json::to_value(crd).unwrap())
            .await
            .unwrap();
    }
    let begun = Instant::now();
    for path in [TENANTS, DATA_STORES, GENERATORS, TOKENS] {
        while send(&client, Method::GET, path, &Value::Null)
            .await
            .is_err()
        {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{path} is not served"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    (server, client)
}

/// What the API server says to `case`: the object, or its refusal.
async fn attempt(
    client: &Client,
    path: &str,
    table: &Table,
    case: &Case,
) -> Result<Value, Box<Status>> {
    let Some(stored) = table.stored(case) else {
        return create(client, path, &table.sent(case)).await;
    };
    let mut object = create(client, path, &stored).await.unwrap();
    let object_path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    if let Some(status) = &case.status {
        object["status"] = status.clone();
        let status_path = format!("{object_path}/status");
        object = send(client, Method::PUT, &status_path, &object)
            .await
            .unwrap();
    }
    json_patch::merge(&mut object, &case.patch);
    send(client, Method::PUT, &object_path, &object).await
}

async fn check(client: &Client, path: &str, table: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in &table.cases {
        assert!(
            !case.by_schema || case.refused.is_some(),
            "{}: what refuses?",
            case.name
        );
        let outcome = attempt(client, path, table, case).await;
        let expected = case.server_says.as_ref().or(case.refused.as_ref());
        match (expected, outcome) {
            (None, Ok(_)) => {}
            (Some(text), Err(status)) if status.message.contains(text) => {}
            (_, outcome) => {
                let said = outcome.map_or_else(|status| status.message, |_| "accepted".to_owned());
                wrong.push(format!("{}: {said}", case.name));
            }
        }
        let name = table.sent(case)["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        // A refused object is not there to be deleted.
        let _ = send(
            client,
            Method::DELETE,
            &format!("{path}/{name}"),
            &json!({}),
        )
        .await;
    }
    wrong
}

pub(crate) async fn the_api_server_accepts_and_refuses_as_the_tables_say(
    version: KubernetesVersion,
) {
    let (_server, client) = server_with_crds(version).await;
    let mut wrong = check(&client, TENANTS, &cases::tenant_control_planes()).await;
    wrong.extend(check(&client, DATA_STORES, &cases::data_stores()).await);
    wrong.extend(check(&client, GENERATORS, &cases::kubeconfig_generators()).await);
    wrong.extend(check(&client, TOKENS, &cases::join_tokens()).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub(crate) async fn the_documented_defaults_are_filled_in(version: KubernetesVersion) {
    let (_server, client) = server_with_crds(version).await;
    let table = cases::tenant_control_planes();
    let stored = create(&client, TENANTS, &table.base).await.unwrap();
    assert_eq!(
        stored["spec"],
        json!({
            "addons": {},
            "controlPlane": {
                "deployment": {
                    "registrySettings": {
                        "apiServerImage": "kube-apiserver",
                        "controllerManagerImage": "kube-controller-manager",
                        "registry": "registry.k8s.io",
                        "schedulerImage": "kube-scheduler",
                        "tagSuffix": "",
                    },
                    "replicas": 2,
                },
                "service": { "serviceType": "ClusterIP", "additionalMetadata": {} },
            },
            "deletion": { "dataRetentionSeconds": 604_800 },
            "kubernetes": {
                "version": "v1.35.4",
                "kubelet": { "preferredAddressTypes": ["InternalIP", "ExternalIP", "Hostname"] },
            },
            "networkProfile": {
                "clusterDomain": "cluster.local",
                "serviceCidr": "10.96.0.0/16",
                "podCidr": "10.244.0.0/16",
            },
        })
    );
    let generator = create(&client, GENERATORS, &cases::kubeconfig_generators().base).await;
    let generator = generator.unwrap()["spec"].clone();
    assert_eq!(
        generator,
        json!({
            "user": { "stringValue": "auditor" },
            "controlPlaneEndpointFrom": "admin.svc",
            "expirationSeconds": 86_400,
        })
    );
    let scale = send(
        &client,
        Method::GET,
        &format!("{TENANTS}/demo/scale"),
        &Value::Null,
    )
    .await;
    assert_eq!(scale.unwrap()["spec"]["replicas"], 2);
}

/// Path of the collection that `object` belongs to.
fn collection(object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap();
    let group = if version.contains('/') { "apis" } else { "api" };
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = kind
        .strip_suffix('y')
        .map_or(format!("{kind}s"), |stem| format!("{stem}ies"));
    let namespace = object["metadata"]["namespace"].as_str();
    let within = namespace.map_or(String::new(), |name| format!("/namespaces/{name}"));
    format!("/{group}/{version}{within}/{plural}")
}

/// Whether everything in `written` is in `stored`, which may have more fields.
fn holds(stored: &Value, written: &Value) -> bool {
    match (stored, written) {
        (Value::Object(stored), Value::Object(written)) => written
            .iter()
            .all(|(key, value)| stored.get(key).is_some_and(|found| holds(found, value))),
        (Value::Array(stored), Value::Array(written)) => {
            stored.len() == written.len() && stored.iter().zip(written).all(|(a, b)| holds(a, b))
        }
        (stored, written) => stored == written,
    }
}

pub(crate) async fn the_examples_are_accepted_and_come_back_as_written(version: KubernetesVersion) {
    let (_server, client) = server_with_crds(version).await;
    for file in ["tenant", "datastore", "workload", "kubeconfiggenerator"] {
        for document in documents(&format!("examples/{file}.yaml")) {
            let stored = create(&client, &collection(&document), &document)
                .await
                .unwrap_or_else(|status| panic!("{file}: {}", status.message));
            assert!(
                holds(&stored, &document),
                "{file}: something got lost: {stored}"
            );
            if document["kind"] == "TenantControlPlane" {
                serde_json::from_value::<TenantControlPlane>(stored).unwrap();
            } else if document["kind"] == "DataStore" {
                serde_json::from_value::<DataStore>(stored).unwrap();
            }
        }
    }
}
