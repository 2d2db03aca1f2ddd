//! One pass over a generator: it counts what came of the passes over tenants, and ends what was made when it goes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::core::ApiResource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use stoker_api::labels::{GENERATED_BY, GENERATOR_FINALIZER, MANAGED_BY, MANAGED_BY_VALUE, PAUSED};
use stoker_api::v1alpha1::KubeconfigGenerator;

use super::status;
use crate::contained::Panicked;
use crate::context::Context;
use crate::finalizer::set_finalizer;
use crate::metrics::{Controller, Outcome};

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot read what a kubeconfig is made from: {0}")]
    Read(#[source] Box<kube::Error>),
    #[error("{0}")]
    Write(#[source] stoker_kube::Error),
    #[error("a kubeconfig's Secret does not turn into JSON")]
    Serialize(#[source] serde_json::Error),
    #[error("cannot set the generator's finalizer")]
    Finalizer(#[source] Box<kube::Error>),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl Error {
    /// `CamelCase` reason for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read(_) => "SecretsNotRead",
            Self::Write(error) => error.category(),
            Self::Serialize(_) => "NotSerialized",
            Self::Finalizer(_) => "FinalizerNotSet",
            Self::Panicked(_) => Panicked::CATEGORY,
        }
    }
}

/// Says what came of the generator; lets it go once nothing of it is left.
///
/// # Errors
/// The management API refused.
pub async fn reconcile(
    generator: Arc<KubeconfigGenerator>,
    ctx: Arc<Context>,
) -> Result<Action, Error> {
    let _pass = ctx.metrics.pass(Controller::KubeconfigGenerator);
    let leaving = generator.meta().deletion_timestamp.is_some();
    if leaving {
        remove_all(&generator, &ctx).await?;
    }
    if !leaving && generator.annotations().contains_key(PAUSED) {
        return Ok(Action::await_change());
    }
    let generators: Api<KubeconfigGenerator> = Api::all(ctx.client.clone());
    let metadata = generator.meta();
    set_finalizer(&generators, metadata, GENERATOR_FINALIZER, !leaving)
        .await
        .map_err(|error| Error::Finalizer(Box::new(error)))?;
    if !leaving {
        status::write(&generator, &ctx)
            .await
            .map_err(Error::Write)?;
    }
    let failures = &ctx.kubeconfigs.generator_failures;
    failures.succeeded(&ObjectRef::from_obj(generator.as_ref()));
    ctx.metrics
        .finished(Controller::KubeconfigGenerator, Outcome::Done);
    Ok(Action::await_change())
}

/// Removes every kubeconfig that the generator has made, found by label.
async fn remove_all(generator: &KubeconfigGenerator, ctx: &Context) -> Result<(), Error> {
    let name = generator.name_any();
    let kind = [ApiResource::erase::<Secret>(&())];
    let made = format!("{GENERATED_BY}={name},{MANAGED_BY}={MANAGED_BY_VALUE}");
    loop {
        let removed = ctx.writer.delete_labelled(&kind, None, &made).await;
        let removed = removed.map_err(Error::Write)?.len();
        if removed == 0 {
            return Ok(());
        }
        tracing::info!(removed, "kubeconfigs removed with their generator");
    }
}
