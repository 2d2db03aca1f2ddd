//! Keys and their copy in the escrow: kept before anything relies on them, and put back when they are lost.

use futures::FutureExt;
use stoker_control_plane::{KeysError, Names, SecretData, StoredKeys};
use time::OffsetDateTime;

use super::apply::Pass;
use super::build::{Materials, NextKeys, Wanted, build};
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
                        self.put_back(&wanted, &copy, existing);
                        continue;
                    }
                    None => return self.next_keys(wanted, existing, turn).await,
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
        next: Option<&'a NextKeys>,
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
            next,
        }
    }

    /// What a pass before has planned.
    fn planned(&self) -> Option<NextKeys> {
        let encryption = lock(&self.state.encryption).take_planned();
        let authorities = || lock(&self.state.authority).take_planned();
        encryption
            .map(NextKeys::Encryption)
            .or_else(|| authorities().map(NextKeys::Authorities))
    }

    /// The same with the next keys, if a pass before has planned a step from those that are there, and if
    /// these are safe: the copy in the pool has them. It is the one that is replaced afterwards, or the step is refused.
    async fn next_keys(
        &self,
        wanted: Wanted,
        existing: &TenantSecrets,
        turn: &mut Turn<'_>,
    ) -> Result<Wanted, Error> {
        let follows = |planned: &NextKeys| {
            self.born && self.place.open.problem.is_none() && planned.follows(&wanted.tenant_keys)
        };
        let Some(planned) = self.planned().filter(follows) else {
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

    /// Whether what is kept in the Secret `name` is as copied, or what became of that by our own doing: an operator died, or
    /// the pool went away, between the two; or the pool is older than the Secret.
    fn is_kept(&self, name: &str, wanted: &Copy, copy: &Copy) -> bool {
        let (tenant, names) = (&self.tenant.name, Names::of(self.tenant));
        let (now, copied) = (wanted.secret(tenant, name), copy.secret(tenant, name));
        let read = |data: Option<SecretData>| StoredKeys::read(&names, name, &data?);
        now == copied
            || match (read(now), read(copied)) {
                (Some(now), Some(before)) => now.succeed(&before),
                _ => false,
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
            Ok(Some(copy)) => {
                let names = Names::of(self.tenant);
                let mut names = names.irreplaceable().into_iter();
                let are_kept = names.all(|name| self.is_kept(name, &wanted.copy, &copy));
                Ok((!are_kept).then_some(copy))
            }
            // There is none, or it is of no use; it is made anew from the keys.
            Ok(None) | Err(Error::Escrow(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts back what is not kept: what the copy is older than may exist nowhere else.
    fn put_back(&self, wanted: &Wanted, copy: &Copy, existing: &mut TenantSecrets) {
        let tenant = &self.tenant.name;
        for name in Names::of(self.tenant).irreplaceable() {
            let entries = copy.secret(tenant, name);
            if let Some(entries) = entries.filter(|_| !self.is_kept(name, &wanted.copy, copy)) {
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
