//! Which `DataStore` a tenant's state is in, and whether it can be worked with now.

use std::sync::Arc;

use kube::ResourceExt;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{DataStore, TenantControlPlane};

use super::error::Error;
use super::status::Check;
use crate::context::Context;
use crate::data_store::OpenPool;
use crate::data_store::pools::Entry;
use crate::data_store::reconcile::data_store_of;

/// Reason while the `DataStore` was not looked at yet since this process started; that look wakes the tenant.
pub(super) const UNKNOWN: &str = "DataStoreUnknown";

/// Where a tenant's state is.
#[derive(Clone)]
pub(super) struct Place {
    /// Name of the `DataStore`.
    pub(super) name: String,
    /// The connection to it.
    pub(super) open: Arc<OpenPool>,
}

impl Place {
    /// A call to the pool has failed: nothing more is asked of it in this pass.
    pub(super) fn fails(&mut self, error: &Error) {
        let problem = Some((error.category(), error.describe()));
        self.open = Arc::new(OpenPool {
            problem,
            ..OpenPool::clone(&self.open)
        });
    }
}

/// The `DataStore` of the tenant, or why it cannot be worked with.
pub(super) fn place(
    object: &TenantControlPlane,
    tenant: &Tenant,
    born: bool,
    ctx: &Context,
) -> Result<Place, Check> {
    let name = choose(&Choice {
        recorded: data_store_of(object),
        wanted: tenant.data_store.as_deref(),
        flag: ctx.args.datastore.as_deref(),
        stores: &ctx.stores.data_stores.state(),
        born,
    })?;
    let open = usable(&name, ctx.pools.get(&name), born)?;
    Ok(Place { name, open })
}

/// What decides which `DataStore` it is, the first that says anything first.
struct Choice<'a> {
    /// By the tenant's status.
    recorded: Option<&'a str>,
    /// By its spec.
    wanted: Option<&'a str>,
    /// By the operator's command line.
    flag: Option<&'a str>,
    /// All there are: the only one is taken.
    stores: &'a [Arc<DataStore>],
    /// Whether the tenant lives there already.
    born: bool,
}

fn choose(choice: &Choice<'_>) -> Result<String, Check> {
    let only = match choice.stores {
        [only] => only.metadata.name.as_deref(),
        _ => None,
    };
    let named = choice.recorded.or(choice.wanted).or(choice.flag);
    let name = named.or(only).ok_or_else(|| {
        Check::fails(
            "DataStoreNotChosen",
            "there is none or more than one DataStore: name one in spec.dataStore or start the operator with --datastore",
        )
    })?;
    let store = choice.stores.iter().find(|store| store.name_any() == name);
    let Some(store) = store else {
        return Err(Check::fails(
            "DataStoreNotFound",
            format!("DataStore {name} does not exist: create it or name another in spec.dataStore"),
        ));
    };
    if !choice.born && store.metadata.deletion_timestamp.is_some() {
        return Err(Check::fails(
            "DataStoreLeaving",
            format!(
                "DataStore {name} is being deleted and takes no new tenants: name another in spec.dataStore"
            ),
        ));
    }
    Ok(name.to_owned())
}

/// A running tenant is kept as it is while its pool is away; a new one waits.
fn usable(name: &str, entry: Option<Entry>, born: bool) -> Result<Arc<OpenPool>, Check> {
    match entry {
        Some(Entry::Open(open)) => match &open.problem {
            Some((reason, message)) if !born => {
                Err(Check::fails(reason, format!("DataStore {name}: {message}")))
            }
            _ => Ok(open),
        },
        Some(Entry::Closed(reason, message)) => {
            Err(Check::fails(reason, format!("DataStore {name}: {message}")))
        }
        None => Err(Check::fails(
            UNKNOWN,
            format!("DataStore {name} was not looked at yet"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str, leaving: bool) -> Arc<DataStore> {
        let mut store = serde_json::json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "DataStore", "metadata": { "name": name },
            "spec": { "driver": "etcd", "endpoints": ["192.0.2.1:2379"], "tlsConfig": {
                "certificateAuthority": { "certificate": { "secretReference": { "name": "c", "namespace": "n", "keyPath": "k" } } },
                "clientCertificate": {
                    "certificate": { "secretReference": { "name": "c", "namespace": "n", "keyPath": "k" } },
                    "privateKey": { "secretReference": { "name": "c", "namespace": "n", "keyPath": "k" } },
                },
            } },
        });
        if leaving {
            store["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z".into();
        }
        Arc::new(serde_json::from_value(store).unwrap())
    }

    #[test]
    fn the_record_then_the_spec_then_the_flag_then_the_only_one_decide() {
        let both = [store("a", false), store("b", false)];
        let one = &both[..1];
        let cases = [
            (Some("a"), Some("b"), Some("b"), &both[..], Ok("a")),
            (None, Some("b"), Some("a"), &both[..], Ok("b")),
            (None, None, Some("b"), &both[..], Ok("b")),
            (None, None, None, &both[..], Err("DataStoreNotChosen")),
            (None, None, None, &both[..0], Err("DataStoreNotChosen")),
            (None, None, None, one, Ok("a")),
            (None, Some("c"), None, one, Err("DataStoreNotFound")),
        ];
        for (recorded, wanted, flag, stores, expected) in cases {
            let born = recorded.is_some();
            let chosen = choose(&Choice {
                recorded,
                wanted,
                flag,
                stores,
                born,
            });
            let chosen = chosen.as_deref().map_err(|check| check.reason);
            assert_eq!(chosen, expected, "{recorded:?} {wanted:?} {flag:?}");
        }
    }

    #[test]
    fn one_that_is_being_deleted_keeps_its_tenants_and_takes_no_new_ones() {
        let stores = [store("a", true)];
        let chosen = |born| {
            choose(&Choice {
                recorded: None,
                wanted: Some("a"),
                flag: None,
                stores: &stores,
                born,
            })
            .map_err(|check| check.reason)
        };
        assert_eq!(chosen(true).as_deref(), Ok("a"));
        assert_eq!(chosen(false), Err("DataStoreLeaving"));
    }

    #[test]
    fn one_that_was_not_opened_says_why() {
        let reason = |entry| {
            usable("a", entry, true)
                .map(drop)
                .map_err(|check| check.reason)
        };
        assert_eq!(reason(None), Err(UNKNOWN));
        let closed = Entry::Closed("SecretNotFound", "Secret n/c does not exist".to_owned());
        assert_eq!(reason(Some(closed)), Err("SecretNotFound"));
    }
}
