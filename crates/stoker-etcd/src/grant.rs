//! What a tenant may read and write, and what is missing or too much.

use stoker_api::StorageId;

/// How a permission may be used, as etcd numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Write only.
    Write,
    /// Read and write.
    ReadWrite,
}

/// One permission of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The first key.
    pub key: Vec<u8>,
    /// The first key after the range; empty for `key` alone, `\0` for everything from `key` on.
    pub range_end: Vec<u8>,
    /// What may be done there.
    pub access: Access,
}

impl Grant {
    /// The one permission a tenant has: its whole range, and nothing else.
    #[must_use]
    pub fn of(id: &StorageId) -> Self {
        Self {
            key: id.prefix().into_bytes(),
            range_end: id.range_end().into_bytes(),
            access: Access::ReadWrite,
        }
    }

    /// Whether the permission covers `key`, by etcd's rules for ranges.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        match self.range_end.as_slice() {
            [] => key == self.key,
            [0] => key >= self.key.as_slice(),
            end => key >= self.key.as_slice() && key < end,
        }
    }

    fn is_same_range(&self, other: &Self) -> bool {
        self.key == other.key && self.range_end == other.range_end
    }
}

/// What etcd has for a tenant; `None` where the role or the user does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The permissions of the tenant's role.
    pub role: Option<Vec<Grant>>,
    /// The roles of the tenant's user.
    pub user: Option<Vec<String>>,
}

/// One thing that a claim had to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The owner was recorded: the id was free.
    OwnerRecorded,
    /// The owner record now names the current object (another uid, or an adoption).
    OwnerUpdated,
    /// The data was retained and has an owner again.
    RetentionEnded,
    /// The role was created.
    RoleCreated,
    /// The tenant's own range was granted to the role.
    RangeGranted,
    /// A permission that is not the tenant's was removed from the role.
    GrantRemoved(Grant),
    /// The user was created, without a password.
    UserCreated,
    /// The role was given to the user.
    RoleAttached,
    /// A role that is not the tenant's was taken from the user.
    RoleDetached(String),
}

/// What must change so that the tenant's user has its role and the role has its range, both
/// nothing else.
///
/// The first part may happen in any order; the second needs the first done.
#[must_use]
pub fn plan(id: &StorageId, observed: &Observed) -> (Vec<Change>, Vec<Change>) {
    let own = Grant::of(id);
    let (mut first, mut then) = (Vec::new(), Vec::new());
    if observed.role.is_none() {
        first.push(Change::RoleCreated);
    }
    let grants = observed.role.as_deref().unwrap_or_default();
    let foreign = grants.iter().filter(|grant| !grant.is_same_range(&own));
    first.extend(foreign.cloned().map(Change::GrantRemoved));
    if !grants.contains(&own) {
        then.push(Change::RangeGranted);
    }

    if observed.user.is_none() {
        first.push(Change::UserCreated);
    }
    let roles = observed.user.as_deref().unwrap_or_default();
    let foreign = roles.iter().filter(|role| *role != id.role());
    first.extend(foreign.cloned().map(Change::RoleDetached));
    if !roles.iter().any(|role| role == id.role()) {
        then.push(Change::RoleAttached);
    }
    (first, then)
}

#[cfg(test)]
mod tests;
