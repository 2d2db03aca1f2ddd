//! Tenants as people write them, and everything that is known about them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{PodSpec, Secret, Service};
use serde_json::{Value, json};
use stoker_api::StorageId;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;
use stoker_control_plane::{
    ExistingSecrets, Exposure, Guards, Inputs, Keys, Leaves, Objects, SecretData, Storage,
    StoragePeer, build, exposure, guards, keys, leaves, storage_client_request,
};
use stoker_pki::Authority;
use time::{Duration, OffsetDateTime};

pub(crate) const STORAGE_ID: &str = "0123456789abcdef0123456789abcdef";

/// The tenant's name under a base domain.
pub(crate) const STABLE_NAME: &str = "0123456789abcdef0123456789abcdef.clusters.example.com";

pub(crate) const WARDEN_IMAGE: &str = "registry.example.com/stoker-warden:v1";

/// The time of every test: 2026-11-21T00:00:00Z.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_795_219_200).unwrap()
}

/// A checked tenant `spec` called `prod/gpu-17`.
pub(crate) fn tenant(spec: &Value) -> Tenant {
    let object: TenantControlPlane = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "TenantControlPlane",
        "metadata": {
            "name": "gpu-17",
            "namespace": "prod",
            "uid": "7c5ee6a6-7a5c-4b7e-9f0d-0f4a3f6f0c11",
            "generation": 1,
        },
        "spec": spec,
    }))
    .unwrap();
    Tenant::validate(&object).unwrap()
}

/// A spec with its Service type, replicas, release and network profile.
pub(crate) fn spec(service_type: &str, replicas: i32, version: &str, network: &Value) -> Value {
    json!({
        "controlPlane": {
            "deployment": { "replicas": replicas },
            "service": { "serviceType": service_type },
        },
        "kubernetes": { "version": version, "kubelet": {} },
        "networkProfile": network,
    })
}

/// Everything that is known about a tenant.
pub(crate) struct Scenario {
    pub(crate) tenant: Tenant,
    pub(crate) keys: Keys,
    pub(crate) leaves: Leaves,
    pub(crate) exposure: Exposure,
    pub(crate) storage: Storage,
    pub(crate) peers: Vec<StoragePeer>,
    pub(crate) management_networks: Vec<IpNet>,
}

impl Scenario {
    /// A tenant before anything of it exists, its Service being as given.
    pub(crate) fn new(spec: &Value, service: Option<&Value>) -> Self {
        Self::named(spec, None, service)
    }

    /// The same with a name under the operator's base domain.
    pub(crate) fn named(spec: &Value, name: Option<&str>, service: Option<&Value>) -> Self {
        let tenant = tenant(spec);
        let service: Option<Service> =
            service.map(|service| serde_json::from_value(service.clone()).unwrap());
        let exposure = exposure(&tenant, name, service.as_ref());
        let keys = keys(&tenant, &ExistingSecrets::new(), false, now()).unwrap();
        let leaves = leaves(&tenant, &keys, &exposure, &ExistingSecrets::new(), now()).unwrap();
        let peers = ["192.0.2.10", "2001:db8::10"].map(|ip: &str| StoragePeer::Address {
            ip: ip.parse::<IpAddr>().unwrap(),
            port: 2379,
        });
        Self {
            tenant,
            peers: peers.into(),
            keys,
            leaves,
            exposure,
            storage: storage(&["192.0.2.10:2379", "[2001:db8::10]:2379"]),
            management_networks: networks(&["10.100.0.0/16", "192.0.2.0/24", "fd00:100::/48"]),
        }
    }

    /// With the pool at these endpoints and peers.
    pub(crate) fn pool(mut self, endpoints: &[&str], peers: Vec<StoragePeer>) -> Self {
        self.storage.endpoints = endpoints
            .iter()
            .map(|&endpoint| endpoint.to_owned())
            .collect();
        self.peers = peers;
        self
    }

    pub(crate) fn build(&self) -> Objects {
        build(&Inputs {
            tenant: &self.tenant,
            keys: &self.keys,
            leaves: &self.leaves,
            exposure: &self.exposure,
            storage: &self.storage,
            kubelets_verified: true,
            warden_image: WARDEN_IMAGE,
        })
    }

    pub(crate) fn guards(&self) -> Guards {
        guards(
            &self.tenant,
            &self.storage.endpoints,
            &self.peers,
            &self.management_networks,
        )
    }

    /// The Secrets as the operator reads them back.
    pub(crate) fn existing(&self) -> ExistingSecrets {
        secrets(&self.build()).iter().map(read_back).collect()
    }
}

/// The simplest tenant, one replica behind a `ClusterIP` Service that has its address.
pub(crate) fn cluster_ip() -> Scenario {
    Scenario::new(
        &spec("ClusterIP", 1, "v1.36.3", &json!({})),
        Some(&json!({
            "metadata": { "name": "gpu-17", "namespace": "prod" },
            "spec": { "clusterIP": "10.100.7.7", "clusterIPs": ["10.100.7.7"] },
        })),
    )
}

/// All Secrets, by name.
pub(crate) fn secrets(objects: &Objects) -> Vec<Secret> {
    let mut all = [objects.keys.clone(), objects.secrets.clone()].concat();
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    all
}

pub(crate) fn pod(objects: &Objects) -> &PodSpec {
    objects
        .deployment
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref()
        .unwrap()
}

pub(crate) fn networks(list: &[&str]) -> Vec<IpNet> {
    list.iter()
        .map(|network| network.parse().unwrap())
        .collect()
}

fn storage(endpoints: &[&str]) -> Storage {
    let id: StorageId = STORAGE_ID.parse().unwrap();
    let authority = Authority::generate("pool", Duration::days(3650), now()).unwrap();
    let client = authority
        .issue(&storage_client_request(&id), now())
        .unwrap();
    Storage {
        id,
        data_store: "default".to_owned(),
        endpoints: endpoints
            .iter()
            .map(|&endpoint| endpoint.to_owned())
            .collect(),
        certificate_authority: authority.certificate().to_owned(),
        client,
    }
}

fn read_back(secret: &Secret) -> (String, SecretData) {
    let data = secret.data.clone().unwrap_or_default();
    let entries: BTreeMap<_, _> = data
        .into_iter()
        .map(|(key, bytes)| (key, bytes.0))
        .collect();
    (secret.metadata.name.clone().unwrap(), entries)
}
