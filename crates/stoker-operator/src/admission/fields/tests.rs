use serde_json::json;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{StandIns, trial};
use time::OffsetDateTime;

use super::*;

fn tenant() -> Tenant {
    let container = |name: &str| json!({ "name": name, "image": name });
    let object: TenantControlPlane = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "one", "namespace": "a", "uid": "u", "generation": 1 },
        "spec": {
            "controlPlane": {
                "service": { "serviceType": "ClusterIP" },
                "deployment": {
                    "additionalContainers": [container("first"), container("second")],
                    "additionalInitContainers": [container("before")],
                    "additionalVolumes": [{ "name": "scratch", "emptyDir": {} }],
                    "additionalVolumeMounts": {
                        "scheduler": [{ "name": "scratch", "mountPath": "/scratch" }],
                    },
                },
            },
            "kubernetes": { "version": "v1.36.3" },
        },
    }))
    .unwrap();
    Tenant::validate(&object).unwrap()
}

#[test]
fn paths_of_the_objects_are_those_of_the_spec() {
    let tenant = tenant();
    let now = OffsetDateTime::from_unix_timestamp(1_795_219_200).unwrap();
    let trial = trial(&tenant, "warden", &StandIns::default(), now).unwrap();
    let pod = trial.deployment.spec.as_ref().unwrap();
    let pod = pod.template.spec.as_ref().unwrap();
    let place = |name: &str| {
        let mut containers = pod.containers.iter();
        containers.position(|found| found.name == name).unwrap()
    };
    let second = format!("spec.template.spec.containers[{}].image", place("second"));
    let warden = format!(
        "spec.template.spec.containers[{}].image",
        place("stoker-warden")
    );
    let scratch = pod.volumes.as_ref().unwrap().len() - 1;
    let scratch = format!("spec.template.spec.volumes[{scratch}].emptyDir");
    let deployment = "spec.controlPlane.deployment";
    for (part, path, expected) in [
        (
            Part::Deployment,
            second.as_str(),
            "D.additionalContainers[1].image",
        ),
        (Part::Deployment, warden.as_str(), ""),
        (
            Part::Deployment,
            "spec.template.spec.containers[name=\"first\"].ports",
            "D.additionalContainers[0].ports",
        ),
        (
            Part::Deployment,
            "spec.template.spec.containers[2].volumeMounts[1].mountPath",
            "D.additionalVolumeMounts.scheduler[0].mountPath",
        ),
        (
            Part::Deployment,
            "spec.template.spec.containers[name=\"kube-scheduler\"].volumeMounts",
            "D.additionalVolumeMounts.scheduler",
        ),
        (
            Part::Deployment,
            "spec.template.spec.containers[0].resources.requests",
            "D.resources.apiServer.requests",
        ),
        (
            Part::Deployment,
            "spec.template.spec.containers[1].livenessProbe.periodSeconds",
            "D.probes.controllerManager.liveness.periodSeconds",
        ),
        (
            Part::Deployment,
            scratch.as_str(),
            "D.additionalVolumes[0].emptyDir",
        ),
        (
            Part::Deployment,
            "spec.template.spec.initContainers[0].name",
            "D.additionalInitContainers[0].name",
        ),
        (
            Part::Deployment,
            "spec.template.spec.containers",
            "D.additionalContainers",
        ),
        (
            Part::Deployment,
            "spec.template.spec.topologySpreadConstraints[0].topologyKey",
            "D.topologySpreadConstraints[0].topologyKey",
        ),
        (
            Part::Deployment,
            "spec.template.metadata.labels",
            "D.podAdditionalMetadata.labels",
        ),
        (Part::Deployment, "spec.templates", ""),
        (
            Part::Service,
            "spec.ports[2].port",
            "spec.controlPlane.service.additionalPorts[1].port",
        ),
        (
            Part::Service,
            "spec.ports[0].nodePort",
            "spec.networkProfile.port",
        ),
        (Part::Service, "spec.selector", ""),
        (
            Part::Ingress,
            "spec.rules[0].host",
            "spec.controlPlane.ingress.hostname",
        ),
    ] {
        let expected = expected.replacen("D.", &format!("{deployment}."), 1);
        let found = field(part, path, &tenant, &trial).unwrap_or_default();
        assert_eq!(found, expected, "{part:?} {path}");
    }
}
