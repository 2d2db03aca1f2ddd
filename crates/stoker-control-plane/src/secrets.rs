//! The Secrets of a control plane.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use stoker_api::labels::KEY_FINALIZER;
use stoker_api::tenant::{API_SERVER_PORT, Tenant};
use stoker_pki::{
    KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, first_certificate, kubeconfig,
};

use crate::deployment::CONFIG_DIRECTORY;
use crate::exposure::waking_name;
use crate::metadata::metadata;
use crate::{Host, Inputs, Names, RotatingAuthority, entry};

/// Where kube-controller-manager and kube-scheduler find the API server: in their own pod, so they
/// work while the Service, the load balancer or cluster DNS does not.
const LOCAL_SERVER: &str = "https://127.0.0.1";

/// The Secrets that can be made anew, by name.
pub(crate) fn secrets(inputs: &Inputs<'_>) -> Vec<Secret> {
    let names = Names::of(inputs.tenant);
    let mut secrets = certificates(inputs, &names);
    secrets.extend(kubeconfigs(inputs, &names));
    secrets.extend(data_store(inputs, &names));
    sorted(secrets)
}

/// The Secrets whose keys exist nowhere else, by name.
pub(crate) fn keys(inputs: &Inputs<'_>) -> Vec<Secret> {
    let names = Names::of(inputs.tenant);
    let keys = inputs.keys;
    let (ca, front_proxy) = (&keys.certificate_authority, &keys.front_proxy_authority);
    let record = keys.encryption.record();
    let mut encryption = vec![(entry::ENCRYPTION, keys.encryption.as_yaml())];
    encryption.extend(
        record
            .iter()
            .map(|record| (entry::ENCRYPTION_RECORD, record.as_str())),
    );
    sorted(guarded(vec![
        authority(
            inputs.tenant,
            &names.ca,
            ca,
            &[
                (entry::TLS_CERTIFICATE, ca.signer().certificate()),
                (entry::TLS_KEY, ca.signer().key().as_pem()),
            ],
        ),
        authority(inputs.tenant, &names.front_proxy_ca, front_proxy, &[]),
        secret(
            inputs.tenant,
            &names.service_account_keys,
            &[
                (
                    entry::SERVICE_ACCOUNT_PUBLIC,
                    keys.service_account.public_pem(),
                ),
                (
                    entry::SERVICE_ACCOUNT_PRIVATE,
                    keys.service_account.private_pem().as_pem(),
                ),
            ],
        ),
        secret(inputs.tenant, &names.encryption, &encryption),
    ]))
}

/// What is believed, the key of what signs, the record of changes, and `more`.
fn authority(
    tenant: &Tenant,
    name: &str,
    authority: &RotatingAuthority,
    more: &[(&str, &str)],
) -> Secret {
    let [trusted, key, record] = authority.role().entries();
    let (certificates, changes) = (authority.trusted(), authority.record());
    let signs = authority.signer().key().as_pem();
    let mut entries = vec![(trusted, certificates.as_str()), (key, signs)];
    entries.extend(changes.iter().map(|changes| (record, changes.as_str())));
    entries.extend_from_slice(more);
    secret(tenant, name, &entries)
}

/// Keeps a Secret of keys from vanishing before its bytes are safe elsewhere.
fn guarded(mut secrets: Vec<Secret>) -> Vec<Secret> {
    for secret in &mut secrets {
        secret.metadata.finalizers = Some(vec![KEY_FINALIZER.to_owned()]);
    }
    secrets
}

fn sorted(mut secrets: Vec<Secret>) -> Vec<Secret> {
    secrets.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    secrets
}

fn certificates(inputs: &Inputs<'_>, names: &Names) -> Vec<Secret> {
    let leaves = inputs.leaves;
    [
        (
            &names.api_server_certificate,
            (entry::API_SERVER_CERTIFICATE, entry::API_SERVER_KEY),
            &leaves.serving,
        ),
        (
            &names.kubelet_client,
            (entry::KUBELET_CLIENT_CERTIFICATE, entry::KUBELET_CLIENT_KEY),
            &leaves.kubelet_client,
        ),
        (
            &names.front_proxy_client,
            (
                entry::FRONT_PROXY_CLIENT_CERTIFICATE,
                entry::FRONT_PROXY_CLIENT_KEY,
            ),
            &leaves.front_proxy_client,
        ),
    ]
    .into_iter()
    .map(|(name, (certificate, key), leaf)| {
        secret(
            inputs.tenant,
            name,
            &[(certificate, &leaf.certificate), (key, leaf.key.as_pem())],
        )
    })
    .collect()
}

fn kubeconfigs(inputs: &Inputs<'_>, names: &Names) -> Vec<Secret> {
    let leaves = inputs.leaves;
    let signer = inputs.keys.certificate_authority.signer().certificate();
    // It was read as one.
    let signer = first_certificate(signer).unwrap_or_default();
    vec![
        admin(inputs, &names.admin_kubeconfig),
        component(
            inputs,
            &names.controller_manager_kubeconfig,
            "system:kube-controller-manager",
            [
                entry::CONTROLLER_MANAGER,
                entry::CONTROLLER_MANAGER_CERTIFICATE,
                entry::CONTROLLER_MANAGER_KEY,
            ],
            &leaves.controller_manager,
            &[(entry::CA_SIGNER, &signer)],
        ),
        component(
            inputs,
            &names.scheduler_kubeconfig,
            "system:kube-scheduler",
            [
                entry::SCHEDULER,
                entry::SCHEDULER_CERTIFICATE,
                entry::SCHEDULER_KEY,
            ],
            &leaves.scheduler,
            &[],
        ),
    ]
}

/// One client certificate in two kubeconfigs: for the endpoint, and for the management cluster.
fn admin(inputs: &Inputs<'_>, name: &str) -> Secret {
    let tenant = inputs.tenant;
    let request = |server: String, tls_server_name: Option<String>| {
        kubeconfig(&KubeconfigRequest {
            cluster: tenant.name.clone(),
            server,
            tls_server_name,
            authority: inputs.keys.certificate_authority.trusted(),
            user: "kubernetes-admin".to_owned(),
            credentials: KubeconfigCredentials::Inline(inputs.leaves.admin.clone()),
        })
    };
    let port = tenant.network.port.unwrap_or(API_SERVER_PORT);
    let inside = request(
        format!("https://{}.{}.svc:{port}", tenant.name, tenant.namespace),
        None,
    );
    let outside = inputs
        .exposure
        .endpoint
        .as_ref()
        .map(|endpoint| request(endpoint.url(), wakes_at(inputs, &endpoint.host)));
    let mut entries = vec![(entry::ADMIN_SERVICE, inside.as_str())];
    entries.extend(outside.as_deref().map(|text| (entry::ADMIN, text)));
    secret(tenant, name, &entries)
}

/// What people who dial `host` say whom they want, so that it wakes. What else is dialled need not lead to our gateway.
fn wakes_at(inputs: &Inputs<'_>, host: &Host) -> Option<String> {
    let Host::Name(host) = host else {
        return None;
    };
    let is_stable = inputs.exposure.stable_name.as_ref() == Some(host);
    let plan = inputs.tenant.hibernation.as_deref();
    let wakes = plan.is_some_and(|plan| plan.wake_on_connection);
    waking_name(inputs.exposure).filter(|_| is_stable && wakes)
}

/// A kubeconfig that refers to files beside it, which client-go reloads when they change.
fn component(
    inputs: &Inputs<'_>,
    name: &str,
    user: &str,
    [config, certificate, key]: [&'static str; 3],
    leaf: &KeyedCertificate,
    more: &[(&str, &str)],
) -> Secret {
    let text = kubeconfig(&KubeconfigRequest {
        cluster: inputs.tenant.name.clone(),
        server: format!("{LOCAL_SERVER}:{API_SERVER_PORT}"),
        tls_server_name: None,
        authority: inputs.keys.certificate_authority.trusted(),
        user: user.to_owned(),
        credentials: KubeconfigCredentials::Files {
            certificate: format!("{CONFIG_DIRECTORY}/{certificate}"),
            key: format!("{CONFIG_DIRECTORY}/{key}"),
        },
    });
    let mut entries = vec![
        (config, text.as_str()),
        (certificate, &leaf.certificate),
        (key, leaf.key.as_pem()),
    ];
    entries.extend_from_slice(more);
    secret(inputs.tenant, name, &entries)
}

fn data_store(inputs: &Inputs<'_>, names: &Names) -> Vec<Secret> {
    let storage = inputs.storage;
    vec![
        secret(
            inputs.tenant,
            &names.datastore_config,
            &[
                (entry::DATASTORE_CONNECTION, &storage.servers()),
                (entry::DATASTORE_SCHEMA, storage.id.as_str()),
                (entry::DATASTORE_USER, storage.id.user()),
            ],
        ),
        secret(
            inputs.tenant,
            &names.datastore_certificate,
            &[
                (entry::CA_CERTIFICATE, &storage.certificate_authority),
                (entry::DATASTORE_CERTIFICATE, &storage.client.certificate),
                (entry::DATASTORE_KEY, storage.client.key.as_pem()),
            ],
        ),
    ]
}

/// A Secret whose role is its name without the tenant's. Without a type, which cannot be changed and is
/// `Opaque` unless people made the Secret first, say as `kubernetes.io/tls`.
fn secret(tenant: &Tenant, name: &str, entries: &[(&str, &str)]) -> Secret {
    let role = name
        .strip_prefix(&tenant.name)
        .unwrap_or(name)
        .trim_start_matches('-');
    let data = entries
        .iter()
        .map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())))
        .collect();
    Secret {
        metadata: metadata(tenant, name, role),
        data: Some(data),
        ..Secret::default()
    }
}
