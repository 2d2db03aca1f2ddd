//! Which `DataStore` a tenant's state is in, and whether it can be worked with now.

use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;

use super::status::{Aspect, Findings};
use crate::context::Context;
use crate::data_store::OpenPool;
use crate::data_store::pools::Entry;

/// Reason while the `DataStore` was not looked at yet since this process started; that look wakes the tenant.
pub(super) const UNKNOWN: &str = "DataStoreUnknown";

/// The `DataStore` of the tenant: as recorded, as asked for, by the flag, or the only one there is.
pub(super) fn choose_store(
    object: &TenantControlPlane,
    tenant: &Tenant,
    born: bool,
    ctx: &Context,
    findings: &mut Findings,
) -> Option<(String, Arc<OpenPool>)> {
    let recorded = crate::data_store::reconcile::data_store_of(object).map(str::to_owned);
    let wanted = recorded
        .or_else(|| tenant.data_store.clone())
        .or_else(|| ctx.args.datastore.clone());
    let name = wanted.or_else(|| {
        let all = ctx.stores.data_stores.state();
        let [only] = all.as_slice() else { return None };
        Some(only.name_any())
    });
    let Some(name) = name else {
        findings.fails(
            Aspect::DataStoreReady,
            "DataStoreNotChosen",
            "there is none or more than one DataStore: name one in spec.dataStore or start the operator with --datastore",
        );
        return None;
    };
    if ctx.stores.data_stores.get(&ObjectRef::new(&name)).is_none() {
        findings.fails(
            Aspect::DataStoreReady,
            "DataStoreNotFound",
            format!("DataStore {name} does not exist: create it or name another in spec.dataStore"),
        );
        return None;
    }
    let leaving =
        |store: &stoker_api::v1alpha1::DataStore| store.metadata.deletion_timestamp.is_some();
    if !born
        && ctx
            .stores
            .data_stores
            .get(&ObjectRef::new(&name))
            .is_some_and(|store| leaving(&store))
    {
        findings.fails(
            Aspect::DataStoreReady,
            "DataStoreLeaving",
            format!("DataStore {name} is being deleted and takes no new tenants: name another in spec.dataStore"),
        );
        return None;
    }
    match ctx.pools.get(&name) {
        // A running tenant is kept as it is while its pool is away; a new one waits.
        Some(Entry::Open(open)) if born || open.problem.is_none() => Some((name, open)),
        Some(Entry::Open(open)) => {
            if let Some((reason, message)) = &open.problem {
                findings.fails(
                    Aspect::DataStoreReady,
                    reason,
                    format!("DataStore {name}: {message}"),
                );
            }
            None
        }
        Some(Entry::Closed(reason, message)) => {
            findings.fails(
                Aspect::DataStoreReady,
                reason,
                format!("DataStore {name}: {message}"),
            );
            None
        }
        None => {
            findings.fails(
                Aspect::DataStoreReady,
                UNKNOWN,
                format!("DataStore {name} was not looked at yet"),
            );
            None
        }
    }
}
