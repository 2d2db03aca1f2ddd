//! Keys and their copy in the escrow: kept before anything relies on them, and put back when they are lost.

use futures::FutureExt;
use stoker_control_plane::{KeysError, Names};
use time::OffsetDateTime;

use super::apply::Pass;
use super::build::{Materials, Wanted, build};
use super::error::Error;
use super::escrow::{self, Copy};
use super::secrets::TenantSecrets;
use super::state::lock;
use super::turn::Turn;

const NO_COPY: &str = "the pool holds no escrow copy of it";

impl Pass<'_> {
    /// Builds; keys whose Secrets are lost come back from their copy in the escrow, which is read once.
    pub(super) async fn build(
        &self,
        existing: &mut TenantSecrets,
        turn: &mut Turn<'_>,
    ) -> Result<Wanted, Error> {
        let mut read = None;
        loop {
            let materials = Materials {
                tenant: self.tenant,
                id: self.id,
                place: self.place,
                exposure: &self.inputs.exposure,
                existing,
                born: self.born,
                kubelets_verified: self.kubelets_verified,
                warden_image: &self.ctx.args.warden_image,
            };
            let (secret, reason) = match build(&materials, OffsetDateTime::now_utc()) {
                Err(Error::Keys(KeysError::Lost { secret, reason })) => (secret, reason),
                Ok(wanted) => match self.changed(&wanted, existing, turn).await? {
                    Some(copy) => {
                        self.put_back(&copy, existing);
                        continue;
                    }
                    None => return Ok(wanted),
                },
                Err(error) => return Err(error),
            };
            if read.is_none() {
                let (pool, key) = (&self.place.open.pool, &self.ctx.escrow_key);
                read = Some(
                    turn.awaiting(escrow::read(self.id, pool, key).boxed())
                        .await,
                );
            }
            let entries = |copy: &Copy| copy.secret(&self.tenant.name, &secret);
            let lost = match &read {
                Some(Err(error)) => error.describe(),
                Some(Ok(Some(copy))) => match entries(copy) {
                    Some(entries) if existing.restore(&secret, &entries) => continue,
                    Some(_) => "its escrow copy is no good either".to_owned(),
                    None => NO_COPY.to_owned(),
                },
                Some(Ok(None)) | None => NO_COPY.to_owned(),
            };
            let keys = KeysError::Lost { secret, reason };
            return Err(Error::Lost { keys, copy: lost });
        }
    }

    /// The escrow copy, when it is of other keys than those of a tenant that has lived. They are good ones, but of
    /// somebody else or of another time: taking them would cut off whatever relies on the tenant's own.
    async fn changed(
        &self,
        wanted: &Wanted,
        existing: &TenantSecrets,
        turn: &mut Turn<'_>,
    ) -> Result<Option<Copy>, Error> {
        let known = *lock(&self.state.escrowed) == wanted.digests();
        let problem = self.place.open.problem.is_some();
        if known || problem || !self.born || !existing.restored().is_empty() {
            return Ok(None);
        }
        let (pool, key) = (&self.place.open.pool, &self.ctx.escrow_key);
        match turn
            .awaiting(escrow::read(self.id, pool, key).boxed())
            .await
        {
            Ok(Some(copy)) if copy == wanted.copy => {
                *lock(&self.state.escrowed) = wanted.digests();
                Ok(None)
            }
            Ok(copy) => Ok(copy),
            // Of no use; it is made anew from the keys.
            Err(Error::Escrow(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put_back(&self, copy: &Copy, existing: &mut TenantSecrets) {
        let tenant = &self.tenant.name;
        for name in Names::of(self.tenant).irreplaceable() {
            if let Some(entries) = copy.secret(tenant, name) {
                existing.restore(name, &entries);
            }
        }
    }

    /// Nothing relies on keys that exist only once: the pods come after this.
    pub(super) async fn keep_copy(
        &self,
        wanted: &Wanted,
        turn: &mut Turn<'_>,
    ) -> Result<(), Error> {
        let digests = wanted.digests();
        let known = *lock(&self.state.escrowed) == digests;
        if known || (self.born && self.place.open.problem.is_some()) {
            return Ok(());
        }
        let (pool, key) = (&self.place.open.pool, &self.ctx.escrow_key);
        turn.awaiting(escrow::keep(self.id, &wanted.copy, pool, key).boxed())
            .await?;
        *lock(&self.state.escrowed) = digests;
        Ok(())
    }

    pub(super) async fn tell_restored(&self, existing: &TenantSecrets) {
        let restored = existing.restored().join(", ");
        if restored.is_empty() {
            return;
        }
        tracing::warn!(
            secrets = restored,
            self.adopts,
            "keys restored from the escrow"
        );
        let (reason, note) = if self.adopts {
            let note = format!(
                "the keys of {restored} came with the data of storage id {}",
                self.id
            );
            ("KeysAdopted", note)
        } else {
            let note = format!(
                "the keys of {restored} were lost and came back from the escrow: who deletes or changes them?"
            );
            ("KeysRestored", note)
        };
        let events = &self.ctx.events;
        events
            .publish(&self.reference, !self.adopts, reason, "Reconcile", &note)
            .await;
    }
}
