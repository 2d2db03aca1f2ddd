//! The files of each container: only those that it needs, named as kubeadm names them.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeMount,
    VolumeProjection,
};

use stoker_api::tenant::Tenant;

use super::configuration;
use crate::{Names, entry, tunnel};

/// Where each container sees its files. The whole volume is mounted, never a part of it (`subPath`),
/// or changes would not show.
pub(crate) const DIRECTORY: &str = "/etc/kubernetes";

/// File modes: readable by the pod's group (`fsGroup`), by nobody else.
const MODE: i32 = 0o440;

pub(super) const API_SERVER: &str = "api-server";
pub(super) const CONTROLLER_MANAGER: &str = "controller-manager";
pub(super) const SCHEDULER: &str = "scheduler";
/// Names that begin like these are nobody else's.
pub(super) const WARDEN: &str = "stoker-warden";
const TUNNEL: &str = "stoker-tunnel";

/// Certificate of the pool's authority, in the API server's container.
pub(super) const POOL_CA: &str = "etcd-ca.crt";
/// The tenant's client certificate in the pool.
pub(super) const POOL_CERTIFICATE: &str = "etcd-client.crt";
/// Its key.
pub(super) const POOL_KEY: &str = "etcd-client.key";

/// Path of a file in a container.
pub(super) fn path(file: &str) -> String {
    format!("{DIRECTORY}/{file}")
}

/// One volume per container.
pub(super) fn volumes(tenant: &Tenant) -> Vec<Volume> {
    let names = &Names::of(tenant);
    let mut api_server = api_server(names);
    api_server.extend(configuration::files_of(tenant, names));
    let mut volumes = vec![
        volume(API_SERVER, api_server),
        volume(CONTROLLER_MANAGER, controller_manager(names)),
        volume(SCHEDULER, scheduler(names)),
    ];
    if tunnel::asked(tenant).is_some() {
        volumes.push(volume(WARDEN, warden(names)));
        volumes.push(Volume {
            name: TUNNEL.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
    }
    volumes
}

/// The directory that API server and warden share.
pub(super) fn tunnel_mount() -> VolumeMount {
    VolumeMount {
        name: TUNNEL.to_owned(),
        mount_path: tunnel::SOCKET_DIRECTORY.to_owned(),
        ..VolumeMount::default()
    }
}

/// The mount of a container's volume.
pub(super) fn mount(volume: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn api_server(names: &Names) -> Vec<VolumeProjection> {
    vec![
        secret(&names.ca, &[entry::CA_CERTIFICATE]),
        secret(&names.front_proxy_ca, &[entry::FRONT_PROXY_CA_CERTIFICATE]),
        secret(
            &names.service_account_keys,
            &[
                entry::SERVICE_ACCOUNT_PUBLIC,
                entry::SERVICE_ACCOUNT_PRIVATE,
            ],
        ),
        secret(
            &names.api_server_certificate,
            &[entry::API_SERVER_CERTIFICATE, entry::API_SERVER_KEY],
        ),
        secret(
            &names.kubelet_client,
            &[entry::KUBELET_CLIENT_CERTIFICATE, entry::KUBELET_CLIENT_KEY],
        ),
        secret(
            &names.front_proxy_client,
            &[
                entry::FRONT_PROXY_CLIENT_CERTIFICATE,
                entry::FRONT_PROXY_CLIENT_KEY,
            ],
        ),
        secret(&names.encryption, &[entry::ENCRYPTION]),
        projection(
            &names.datastore_certificate,
            vec![
                item(entry::CA_CERTIFICATE, POOL_CA),
                item(entry::DATASTORE_CERTIFICATE, POOL_CERTIFICATE),
                item(entry::DATASTORE_KEY, POOL_KEY),
            ],
        ),
    ]
}

/// What the warden shows to nodes, whom it believes, and how many of it there are.
fn warden(names: &Names) -> Vec<VolumeProjection> {
    vec![
        secret(&names.ca, &[entry::CA_CERTIFICATE]),
        secret(
            &names.api_server_certificate,
            &[entry::API_SERVER_CERTIFICATE, entry::API_SERVER_KEY],
        ),
        configuration::tunnel_files(names, &[entry::SERVER_COUNT]),
    ]
}

/// The authority's key is here because kube-controller-manager signs the nodes' certificates.
fn controller_manager(names: &Names) -> Vec<VolumeProjection> {
    vec![
        secret(&names.ca, &[entry::CA_CERTIFICATE, entry::CA_KEY]),
        secret(&names.front_proxy_ca, &[entry::FRONT_PROXY_CA_CERTIFICATE]),
        secret(
            &names.service_account_keys,
            &[entry::SERVICE_ACCOUNT_PRIVATE],
        ),
        secret(
            &names.controller_manager_kubeconfig,
            &[
                entry::CONTROLLER_MANAGER,
                entry::CONTROLLER_MANAGER_CERTIFICATE,
                entry::CONTROLLER_MANAGER_KEY,
                entry::CA_SIGNER,
            ],
        ),
    ]
}

fn scheduler(names: &Names) -> Vec<VolumeProjection> {
    vec![
        secret(&names.ca, &[entry::CA_CERTIFICATE]),
        secret(&names.front_proxy_ca, &[entry::FRONT_PROXY_CA_CERTIFICATE]),
        secret(
            &names.scheduler_kubeconfig,
            &[
                entry::SCHEDULER,
                entry::SCHEDULER_CERTIFICATE,
                entry::SCHEDULER_KEY,
            ],
        ),
    ]
}

fn volume(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(MODE),
            sources: Some(sources),
        }),
        ..Volume::default()
    }
}

fn secret(name: &str, entries: &[&str]) -> VolumeProjection {
    projection(
        name,
        entries.iter().map(|entry| item(entry, entry)).collect(),
    )
}

pub(super) fn projection(name: &str, items: Vec<KeyToPath>) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection {
            name: name.to_owned(),
            items: Some(items),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

pub(super) fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath {
        key: key.to_owned(),
        path: path.to_owned(),
        mode: None,
    }
}
