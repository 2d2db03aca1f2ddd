//! Sample manifests of Kamaji's, one for each group of its fields; the result must be one that our CRDs accept.

use std::path::PathBuf;

use stoker_api::v1alpha1::{DataStore, KubeconfigGenerator, TenantControlPlane};

use super::*;

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kamaji")
}

fn converted(name: &str) -> Converted {
    let text = std::fs::read_to_string(samples().join(name)).unwrap();
    kamaji::convert(parse(&text).unwrap())
}

fn tenant(object: &Value) -> TenantControlPlane {
    serde_json::from_value(object.clone()).unwrap()
}

fn warned(warnings: &[String], about: &str) -> bool {
    warnings.iter().any(|warning| warning.contains(about))
}

#[test]
fn every_sample_becomes_what_the_crds_accept() {
    let mut count = 0;
    for entry in std::fs::read_dir(samples()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Converted { objects, warnings } = converted(&name);
        let text = rendered(&objects).unwrap();
        assert!(!text.contains("kamaji"), "{name}: {text}");
        assert!(
            !warned(&warnings, "would be refused"),
            "{name}: {warnings:#?}"
        );
        // What is printed is what was converted.
        assert_eq!(parse(&text).unwrap(), objects, "{name}");
        for object in objects {
            match object["kind"].as_str().unwrap() {
                "TenantControlPlane" => drop(tenant(&object)),
                "DataStore" => drop(serde_json::from_value::<DataStore>(object).unwrap()),
                "KubeconfigGenerator" => {
                    drop(serde_json::from_value::<KubeconfigGenerator>(object).unwrap());
                }
                other => assert_eq!(other, "Namespace", "{name}"),
            }
            count += 1;
        }
    }
    assert!(count >= 8, "{count} objects");
}

#[test]
fn what_is_supported_is_carried_over_word_for_word() {
    let Converted { objects, warnings } = converted("every-field.yaml");
    assert_eq!(warnings, Vec::<String>::new());
    let before = std::fs::read_to_string(samples().join("every-field.yaml")).unwrap();
    let renamed = before.replace("kamaji.clastix.io", "stoker.dev");
    assert_eq!(parse(&renamed).unwrap(), objects);
}

#[test]
fn everything_that_is_lost_is_named() {
    let Converted { objects, warnings } = converted("lost.yaml");
    let lost = [
        "spec.addons.konnectivity.server.version: left out: the tunnel's server is",
        "spec.addons.konnectivity.agent.image: left out: the tunnel's agent is stoker-node",
        "spec.addons.konnectivity.agent.extraArgs: left out: the tunnel's agent",
        "spec.dataStoreOverrides",
        "spec.dataStoreSchema: left out: a new identity",
        "spec.dataStoreUsername: left out: a new identity",
        "resources.kine: left out: there is no kine",
        "extraArgs.kine: left out: there is no kine",
        "extraArgs.apiServer: --token-auth-file=/a: left out: --token-auth-file",
        "extraArgs.apiServer: --etcd-prefix=/x: left out: --etcd-prefix",
        "admissionControllers: PodSecurityPolicy: left out",
        "additionalVolumes[0].hostPath: left out: volumes are",
        "annotation kamaji.clastix.io/kubeconfig-secret-key: left out",
        "DataStore postgres: left out: spec.driver PostgreSQL",
    ];
    for loss in lost {
        assert!(warned(&warnings, loss), "{loss}: {warnings:#?}");
    }
    let tenant = tenant(&objects[0]);
    let arguments = tenant.spec.control_plane.deployment.extra_args;
    let kept = serde_json::to_value(arguments).unwrap();
    assert_eq!(kept["apiServer"], serde_json::json!(["--v=2"]));
    assert_eq!(objects.len(), 1);
}

#[test]
fn a_live_object_loses_what_its_cluster_wrote() {
    let Converted { objects, warnings } = converted("live-list.yaml");
    assert!(!warnings.is_empty());
    for object in &objects {
        let fields: Vec<_> = object["metadata"].as_object().unwrap().keys().collect();
        let written = ["uid", "resourceVersion", "managedFields", "finalizers"];
        assert!(
            !fields.iter().any(|field| written.contains(&field.as_str())),
            "{fields:?}"
        );
        assert!(object.get("status").is_none());
        assert!(object["metadata"]["annotations"].is_null());
    }
}

#[test]
fn what_would_be_refused_is_said_with_the_reason() {
    let text = "\
apiVersion: kamaji.clastix.io/v1alpha1
kind: TenantControlPlane
metadata: {name: old, namespace: a}
spec:
  controlPlane: {service: {serviceType: NodePort}, deployment: {automountServiceAccountToken: true}}
  kubernetes: {version: v1.30.1, kubelet: {}}
";
    let Converted { warnings, .. } = kamaji::convert(parse(text).unwrap());
    let refusals = ["v1.33 to v1.36", "networkProfile.address is required"];
    for refusal in refusals {
        let found = warnings
            .iter()
            .any(|said| said.contains("would be refused") && said.contains(refusal));
        assert!(found, "{refusal}: {warnings:#?}");
    }
}
