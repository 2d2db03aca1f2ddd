//! Giving a storage id to a tenant, and healing what it was given.

use etcd_client::{Permission, PermissionType, RoleRevokePermissionOptions, UserAddOptions};
use futures::future::try_join_all;
use stoker_api::StorageId;

use super::record::StoredRecord;
use super::{Pool, answers};
use crate::answer::Answer;
use crate::error::Error;
use crate::grant::{Access, Change, Grant, Observed, plan};
use crate::owner::{Owner, OwnerRecord};

/// What a claim had to do; nothing when the id was complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The changes, in the order they were made.
    pub changes: Vec<Change>,
}

impl Claim {
    /// Whether the id was complete before.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Whose id may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takeover {
    /// Nobody's.
    Never,
    /// That of an owner who is gone and whose data is retained.
    Released,
}

/// Whether the id of this record may become `owner`'s.
fn check_takeover(
    id: &StorageId,
    owner: &Owner,
    takeover: Takeover,
    stored: &StoredRecord,
) -> Result<(), Error> {
    let old = &stored.record;
    let may_take = old.retained_until.is_some() && takeover == Takeover::Released;
    if !old.owner.is_same(owner) && !may_take {
        return Err(Error::AlreadyOwned {
            id: id.clone(),
            owner: Box::new(old.owner.clone()),
            retained_until: old.retained_until,
        });
    }
    if old.purging {
        return Err(Error::BeingPurged { id: id.clone() });
    }
    Ok(())
}

impl Pool {
    /// Gives `id` to `owner`: owner record, role with exactly the id's range, user without a
    /// password. Heals whatever differs; a complete id costs four reads and no write, a free one no read of what is not there.
    ///
    /// Data of the same owner that was retained comes back to it.
    ///
    /// # Errors
    /// [`Error::AlreadyOwned`] when another owner has the id, even one that is gone
    /// ([`Self::adopt`] takes over such an id); [`Error::BeingPurged`]; [`Error::AuthDisabled`]; or the pool fails. Nothing
    /// of the id is changed then but what was missing, and the call may be repeated.
    pub async fn claim(&self, id: &StorageId, owner: &Owner) -> Result<Claim, Error> {
        Box::pin(self.claim_as(id, owner, Takeover::Never)).await
    }

    /// Whether [`Self::adopt`] would give `id` to `owner`. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Self::adopt`].
    pub async fn check_adoption(&self, id: &StorageId, owner: &Owner) -> Result<(), Error> {
        let stored = self.known_record(id).await?;
        check_takeover(id, owner, Takeover::Released, &stored)
    }

    /// Like [`Self::claim`], and also takes over an id whose data is retained after its owner was
    /// deleted. Only for an id that someone asked for by name, and that the pool knows.
    ///
    /// # Errors
    /// As [`Self::claim`]; [`Error::AlreadyOwned`] while the other owner lives; [`Error::NothingToAdopt`].
    pub async fn adopt(&self, id: &StorageId, owner: &Owner) -> Result<Claim, Error> {
        Box::pin(self.claim_as(id, owner, Takeover::Released)).await
    }

    async fn claim_as(
        &self,
        id: &StorageId,
        owner: &Owner,
        takeover: Takeover,
    ) -> Result<Claim, Error> {
        let record = async {
            match takeover {
                Takeover::Never => self.create_record(id, owner).await,
                Takeover::Released => self.known_record(id).await.map(Some),
            }
        };
        let (stored, ()) = tokio::try_join!(record, self.require_auth())?;
        let (mut changes, observed) = match stored {
            // A free id has neither role nor user: that is not asked, but noticed where it is not so.
            None => (vec![Change::OwnerRecorded], Observed::default()),
            Some(stored) => {
                let taken = self.take_record(id, owner, takeover, &stored).await?;
                (taken, self.observe(id).await?)
            }
        };
        let (first, mut then) = plan(id, &observed);
        let all_new = self.make_all(id, &first).await?;
        changes.extend(first);
        if !all_new {
            let (more, rest) = plan(id, &self.observe(id).await?);
            self.make_all(id, &more).await?;
            changes.extend(more);
            then = rest;
        }
        self.make_all(id, &then).await?;
        changes.extend(then);
        if !changes.is_empty() {
            tracing::info!(%id, %owner, ?changes, "storage id claimed");
        }
        Ok(Claim { changes })
    }

    /// Makes an existing record that of `owner`, where it may be.
    async fn take_record(
        &self,
        id: &StorageId,
        owner: &Owner,
        takeover: Takeover,
        stored: &StoredRecord,
    ) -> Result<Vec<Change>, Error> {
        check_takeover(id, owner, takeover, stored)?;
        let old = &stored.record;
        let mut changes = Vec::new();
        if old.owner != *owner {
            changes.push(Change::OwnerUpdated);
        }
        if old.retained_until.is_some() {
            changes.push(Change::RetentionEnded);
        }
        if !changes.is_empty() {
            let record = OwnerRecord {
                owner: owner.clone(),
                claimed_at: old.claimed_at,
                retained_until: None,
                purging: false,
            };
            self.replace_record(id, stored, record).await?;
        }
        Ok(changes)
    }

    async fn known_record(&self, id: &StorageId) -> Result<StoredRecord, Error> {
        let unknown = || Error::NothingToAdopt { id: id.clone() };
        self.record(id).await?.ok_or_else(unknown)
    }

    async fn observe(&self, id: &StorageId) -> Result<Observed, Error> {
        let (role, user) = tokio::try_join!(self.role_grants(id.role()), self.user_roles(id))?;
        Ok(Observed { role, user })
    }

    async fn role_grants(&self, role: &str) -> Result<Option<Vec<Grant>>, Error> {
        let found = self
            .call("read a role", |mut client| async move {
                client.role_get(role).await
            })
            .await;
        let role = absent_is_none(found)?;
        Ok(role.map(|role| role.permissions().iter().map(grant).collect()))
    }

    async fn user_roles(&self, id: &StorageId) -> Result<Option<Vec<String>>, Error> {
        let found = self
            .call("read a user", |mut client| async move {
                client.user_get(id.user()).await
            })
            .await;
        Ok(absent_is_none(found)?.map(|user| user.roles().to_vec()))
    }

    /// Makes changes at the same time; whether none of them had been made already.
    async fn make_all(&self, id: &StorageId, changes: &[Change]) -> Result<bool, Error> {
        let made = try_join_all(changes.iter().map(|change| self.make(id, change)));
        Ok(made.await?.into_iter().all(|new| new))
    }

    /// Makes one change in etcd. That it has been made already is success, and `false`.
    async fn make(&self, id: &StorageId, change: &Change) -> Result<bool, Error> {
        let (there, gone) = (Answer::AlreadyExists, Answer::NotFound);
        match change {
            Change::RoleCreated => {
                self.ensure("add a role", there, |mut client| async move {
                    client.role_add(id.role()).await
                })
                .await
            }
            Change::RangeGranted => self
                .call("grant a tenant its range", |mut client| async move {
                    client
                        .role_grant_permission(id.role(), own_permission(id))
                        .await
                })
                .await
                .map(|_| true),
            Change::GrantRemoved(grant) => {
                self.ensure("revoke a permission", gone, |mut client| async move {
                    let range =
                        RoleRevokePermissionOptions::new().with_range_end(grant.range_end.clone());
                    let key = grant.key.clone();
                    client
                        .role_revoke_permission(id.role(), key, Some(range))
                        .await
                })
                .await
            }
            Change::UserCreated => {
                self.ensure("add a user", there, |mut client| async move {
                    let options = UserAddOptions::new().with_no_pwd();
                    client.user_add(id.user(), "", Some(options)).await
                })
                .await
            }
            Change::RoleAttached => self
                .call("grant a user its role", |mut client| async move {
                    client.user_grant_role(id.user(), id.role()).await
                })
                .await
                .map(|_| true),
            Change::RoleDetached(role) => {
                self.ensure("revoke a role", gone, |mut client| async move {
                    client.user_revoke_role(id.user(), role.as_str()).await
                })
                .await
            }
            Change::OwnerRecorded | Change::OwnerUpdated | Change::RetentionEnded => Ok(true),
        }
    }
}

fn own_permission(id: &StorageId) -> Permission {
    let own = Grant::of(id);
    Permission::new(PermissionType::Readwrite, own.key).with_range_end(own.range_end)
}

fn grant(permission: &Permission) -> Grant {
    let access = match PermissionType::try_from(permission.get_type()) {
        Ok(PermissionType::Readwrite) => Access::ReadWrite,
        Ok(PermissionType::Write) => Access::Write,
        Ok(PermissionType::Read) | Err(_) => Access::Read,
    };
    Grant {
        key: permission.key().to_vec(),
        range_end: permission.range_end().to_vec(),
        access,
    }
}

fn absent_is_none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Refused { source, .. }) if answers(&source, Answer::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
