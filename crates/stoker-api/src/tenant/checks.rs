//! What CEL refuses at admission and an older object may still have.

use k8s_openapi::api::core::v1::Volume;

use super::InvalidTenant;
use crate::admission_plugins;
use crate::arguments::{Argument, Component};
use crate::v1alpha1::{Audit, ControlPlaneDeployment, Encryption, EncryptionProvider};
use crate::version::KubernetesVersion;

/// The argument that names an issuer of service-account tokens.
const ISSUER_ARGUMENT: &str = "--service-account-issuer=";

pub(super) fn admission_controllers(
    version: KubernetesVersion,
    names: &[String],
) -> Result<(), InvalidTenant> {
    let exists = |name: &&String| admission_plugins::of(version.minor).any(|known| known == *name);
    match names.iter().find(|name| !exists(name)) {
        None => Ok(()),
        Some(name) => Err(InvalidTenant::AdmissionController {
            version,
            name: name.clone(),
        }),
    }
}

pub(super) fn arguments(deployment: &ControlPlaneDeployment) -> Result<(), InvalidTenant> {
    for component in Component::ALL {
        for text in deployment.extra_args.of(component) {
            Argument::parse(component, text).map_err(|refused| InvalidTenant::Argument {
                field: component.field(),
                refused,
            })?;
        }
    }
    Ok(())
}

/// Only what an object stored before the rule could have: schema and CEL leave nothing else.
pub(super) fn volumes(deployment: &ControlPlaneDeployment) -> Result<(), InvalidTenant> {
    let allowed = |volume: &Volume| {
        let sources = [
            volume.config_map.is_some(),
            volume.empty_dir.is_some(),
            volume.projected.is_some(),
            volume.secret.is_some(),
        ];
        let projections = volume
            .projected
            .iter()
            .flat_map(|from| from.sources.iter().flatten());
        sources.into_iter().filter(|set| *set).count() == 1
            && projections
                .into_iter()
                .all(|from| from.service_account_token.is_none())
    };
    match deployment
        .additional_volumes
        .0
        .iter()
        .find(|volume| !allowed(volume))
    {
        None => Ok(()),
        Some(volume) => Err(InvalidTenant::Volume(volume.name.clone())),
    }
}

pub(super) fn audit_log(
    audit: Option<&Audit>,
    deployment: &ControlPlaneDeployment,
) -> Result<(), InvalidTenant> {
    let log = audit.and_then(|audit| audit.log.as_ref());
    let Some(name) = log.and_then(|log| log.volume.as_ref()) else {
        return Ok(());
    };
    let mut volumes = deployment.additional_volumes.0.iter();
    if volumes.any(|volume| volume.name == *name && volume.empty_dir.is_some()) {
        return Ok(());
    }
    Err(InvalidTenant::AuditVolume(name.clone()))
}

pub(super) fn issuers(
    issuers: &[String],
    deployment: &ControlPlaneDeployment,
) -> Result<(), InvalidTenant> {
    let mut asked = deployment.extra_args.api_server.iter();
    let named = |text: &String| text.replace('_', "-").starts_with(ISSUER_ARGUMENT);
    if !issuers.is_empty() && asked.any(named) {
        return Err(InvalidTenant::IssuersTwice);
    }
    Ok(())
}

pub(super) fn encryption(
    encryption: &Encryption,
    deployment: &ControlPlaneDeployment,
) -> Result<(), InvalidTenant> {
    if (encryption.provider == EncryptionProvider::Kms) != encryption.kms.is_some() {
        let wrong = "kms goes with provider kms alone, and that with kms";
        return Err(InvalidTenant::Encryption(wrong));
    }
    if !encryption.resources.iter().any(|name| name == "secrets") {
        let wrong = "resources: secrets are always encrypted";
        return Err(InvalidTenant::Encryption(wrong));
    }
    let Some(plugin) = &encryption.kms else {
        return Ok(());
    };
    let mounts = &deployment.additional_volume_mounts.api_server.0;
    let is_in = |directory: &str| {
        let below = plugin.socket().strip_prefix(directory);
        below.is_some_and(|below| below.starts_with('/'))
    };
    if mounts.iter().any(|mount| is_in(&mount.mount_path)) {
        return Ok(());
    }
    let wrong = "kms.endpoint is in no mount of spec.controlPlane.deployment.additionalVolumeMounts.apiServer";
    Err(InvalidTenant::Encryption(wrong))
}
