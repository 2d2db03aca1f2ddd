//! Keys and their copy in the escrow: kept before anything relies on them, and put back when they are lost.

use futures::FutureExt;
use stoker_control_plane::{EncryptionKeys, KeysError, Names, entry};
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
            let materials = self.materials(existing, None);
            let (secret, reason) = match build(&materials, OffsetDateTime::now_utc()) {
                Err(Error::Keys(KeysError::Lost { secret, reason })) => (secret, reason),
                Ok(wanted) => match self.changed(&wanted, existing, turn).await? {
                    Some(copy) => {
                        self.put_back(&copy, existing);
                        continue;
                    }
                    None => return self.next_encryption(wanted, existing, turn).await,
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

    fn materials<'a>(
        &'a self,
        existing: &'a TenantSecrets,
        encryption: Option<&'a EncryptionKeys>,
    ) -> Materials<'a> {
        Materials {
            tenant: self.tenant,
            id: self.id,
            place: self.place,
            exposure: &self.inputs.exposure,
            existing,
            born: self.born,
            kubelets_verified: self.kubelets_verified,
            warden_image: &self.ctx.args.warden_image,
            encryption,
        }
    }

    /// The same with the next encryption keys, if a pass before has planned a step from those that are there, and if
    /// these are safe: the copy in the pool has them. It is the one that is replaced afterwards, or the step is refused.
    async fn next_encryption(
        &self,
        wanted: Wanted,
        existing: &TenantSecrets,
        turn: &mut Turn<'_>,
    ) -> Result<Wanted, Error> {
        let planned = lock(&self.state.encryption).take_planned();
        let follows = |planned: &EncryptionKeys| {
            self.born
                && self.place.open.problem.is_none()
                && planned.follows(&wanted.tenant_keys.encryption)
        };
        let Some(planned) = planned.filter(follows) else {
            return Ok(wanted);
        };
        let (pool, key) = (&self.place.open.pool, &self.ctx.escrow_key);
        let stored = escrow::read_stored(self.id, pool, key);
        match turn.awaiting(stored.boxed()).await {
            Ok(Some((copy, escrow))) if copy == wanted.copy => {
                let materials = self.materials(existing, Some(&planned));
                let mut next = build(&materials, OffsetDateTime::now_utc())?;
                next.replaces = Some(escrow);
                Ok(next)
            }
            // This pass brings it up to date, the next one plans again.
            Ok(_) | Err(Error::Escrow(_)) => {
                lock(&self.state.escrowed).clear();
                Ok(wanted)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the keys only are a step ahead of their copy: an operator died, or the pool went away, between the two.
    fn is_a_step_ahead(&self, wanted: &Wanted, copy: &Copy) -> bool {
        let (tenant, name) = (&self.tenant.name, Names::of(self.tenant).encryption);
        if !wanted.copy.differs_only_in(copy, tenant, &name) {
            return false;
        }
        let entries = copy.secret(tenant, &name).unwrap_or_default();
        let text = |entry| std::str::from_utf8(entries.get(entry)?).ok();
        let copied = text(entry::ENCRYPTION)
            .and_then(|yaml| EncryptionKeys::read(yaml, text(entry::ENCRYPTION_RECORD)).ok());
        copied.is_some_and(|copied| wanted.tenant_keys.encryption.follows(&copied))
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
            Ok(Some(copy)) if self.is_a_step_ahead(wanted, &copy) => Ok(None),
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
        if let Some(read) = &wanted.replaces {
            let replaced = escrow::replace(self.id, &wanted.copy, read, pool, key);
            turn.awaiting(replaced.boxed()).await?;
        } else {
            let kept = escrow::keep(self.id, &wanted.copy, pool, key, self.born);
            turn.awaiting(kept.boxed()).await?;
        }
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
