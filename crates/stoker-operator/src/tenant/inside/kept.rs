//! Our objects inside a tenant, kept as they should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE, PROJECT};
use stoker_api::tenant::Tenant;
use stoker_kube::{Desired, Fingerprint, Ledger, ObjectKey, Writer};
use stoker_tenant::{Access, TenantObjects};

use crate::FIELD_MANAGER;
use crate::tenant::addresses::left_alone;
use crate::tenant::connection::owned_kinds;
use crate::tenant::error::Error;
use crate::tenant::task::Task;

/// Objects applied at the same time inside one tenant: all of them, so that they leave together and their answers come
/// together. An API server takes hundreds.
const CONCURRENCY: usize = 64;
/// How often what was left over from before is looked for at most, if that fails: whoever owns a tenant can have it fail
/// for ever.
const SWEEPS: u8 = 3;
/// All writes into one tenant in one pass. A tenant whose webhooks hang must not hold the operator.
const LIMIT: Duration = Duration::from_secs(15);

/// What is known of our objects inside a tenant, over one connection.
pub struct Kept {
    /// What was applied. Whoever watches the objects tells it of their changes.
    ledger: Arc<Ledger>,
    /// What was applied last, and is there as far as anybody has seen. Boxed: most tenants of a fleet sleep.
    settled: Option<Box<Settled>>,
    /// Tells the ledger when others change something of ours, and wakes the tenant.
    watch: Option<Task>,
    /// How often what was left over from before is still to be looked for, if that fails.
    sweeps: u8,
}

/// What everything inside a tenant was applied from: all that [`stoker_tenant::build`] is given, the spec by its
/// generation. On the management side [`Inputs`](crate::tenant::state::Inputs) are that.
#[derive(PartialEq)]
struct Settled {
    /// `metadata.generation`.
    generation: i64,
    access: Access,
    /// How often others had changed something of ours before.
    disturbances: u64,
}

impl Kept {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        Self {
            ledger: Arc::default(),
            settled: None,
            watch: None,
            sweeps: SWEEPS,
        }
    }

    /// Applies what is not known to be so already, and removes what is not wanted any more: of a tenant that was
    /// configured by somebody before also what this process never knew. Returns whether anything was changed.
    ///
    /// `watch` begins to watch our objects, from versions on that were written, or from what there is. What is there
    /// already may go while we look at it: it is watched before. What is not there yet would come back as an event an
    /// object, a wake-up each: it is watched from the first version of each kind on, once it was written.
    ///
    /// # Errors
    /// The tenant's API refused a write, or does not answer in time.
    pub(super) async fn keep(
        &mut self,
        client: &Client,
        tenant: &Tenant,
        access: Access,
        known: bool,
        watch: impl Fn(Arc<Ledger>, Vec<(ObjectKey, Fingerprint)>) -> Task,
    ) -> Result<bool, Error> {
        let from = Settled {
            generation: tenant.generation,
            access,
            disturbances: self.ledger.disturbances(),
        };
        if self.settled.as_deref() == Some(&from) {
            return Ok(false);
        }
        self.settled = None;
        let ledger = &self.ledger;
        let begin = |written| watch(Arc::clone(ledger), written);
        if known {
            self.watch.get_or_insert_with(|| begin(Vec::new()));
        }
        // A tenant that was never configured has nothing left over.
        let sweeps = known && self.sweeps > 0;
        self.sweeps = self.sweeps.saturating_sub(1);
        let applied = apply(client, ledger, tenant, &from.access, sweeps);
        let applied = tokio::time::timeout(LIMIT, applied).await;
        self.watch.get_or_insert_with(|| begin(ledger.written()));
        let Ok(changed) = applied else {
            return Err(Error::InsideTimeout(LIMIT));
        };
        let changed = changed?;
        self.settled = Some(Box::new(from));
        self.sweeps = 0;
        Ok(changed)
    }
}

async fn apply(
    client: &Client,
    ledger: &Ledger,
    tenant: &Tenant,
    access: &Access,
    sweeps: bool,
) -> Result<bool, Error> {
    let mut objects = stoker_tenant::build(tenant, access)?;
    let writer = Writer::new(client.clone(), FIELD_MANAGER);
    let apply = |desired| writer.apply_all(desired, ledger, CONCURRENCY);
    // Before the pods that run as them.
    let accounts = accounts(&objects)?;
    let mut outcomes = apply(accounts).await.map_err(Error::Inside)?;
    objects.tie_to_accounts(|namespace, name| {
        ledger.uid(&ObjectKey::of::<ServiceAccount>(Some(namespace), name))
    });
    outcomes.extend(apply(others(&objects)?).await.map_err(Error::Inside)?);
    let mut keep: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.key.clone()).collect();
    keep.extend(left_alone(&objects, tenant, access));
    writer.prune(ledger, &keep).await.map_err(Error::Inside)?;
    if sweeps {
        // From before this process knew the tenant: an add-on taken out of the spec since.
        let kinds = owned_kinds();
        let ours = format!("{MANAGED_BY}={MANAGED_BY_VALUE},{PROJECT}={MANAGED_BY_VALUE}");
        writer
            .prune_kinds(&kinds, None, &ours, &keep)
            .await
            .map_err(Error::Inside)?;
    }
    Ok(outcomes.iter().any(|outcome| outcome.changed))
}

fn accounts(objects: &TenantObjects) -> Result<Vec<Desired>, serde_json::Error> {
    objects.service_accounts.iter().map(Desired::of).collect()
}

fn others(objects: &TenantObjects) -> Result<Vec<Desired>, serde_json::Error> {
    let mut all = Vec::new();
    macro_rules! add {
        ($($field:ident),+) => { $(for object in &objects.$field { all.push(Desired::of(object)?); })+ };
    }
    for object in &objects.config_maps {
        let desired = Desired::of(object)?;
        all.push(match stoker_tenant::left_to_tenant(object) {
            Some(field) => desired.yielding(field),
            None => desired,
        });
    }
    add!(
        cluster_roles,
        cluster_role_bindings,
        roles,
        role_bindings,
        services,
        endpoints,
        endpoint_slices,
        deployments,
        daemon_sets,
        priority_levels,
        flow_schemas
    );
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Method, Request, Response};
    use k8s_openapi::api::rbac::v1::ClusterRole;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::client::Body;
    use kube::runtime::reflector::ObjectRef;
    use serde_json::json;
    use stoker_api::v1alpha1::TenantControlPlane;
    use stoker_kube::Change;

    use super::*;
    use crate::watches::tests::operator;

    /// An API server to which every object is new and which lists none, and how often it was asked.
    fn server() -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut object = json!({
                "apiVersion": "v1", "kind": "Any",
                "metadata": { "name": "any", "uid": "u", "resourceVersion": "5" },
            });
            if request.method() == Method::GET {
                object["items"] = json!([]);
            }
            let answer = Response::new(Body::from(object.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(answer) }
        });
        (Client::new(service, "default"), asked)
    }

    fn tenant() -> Tenant {
        let object: TenantControlPlane = serde_json::from_value(json!({
            "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
            "metadata": { "name": "one", "namespace": "a", "uid": "u", "generation": 1 },
            "spec": {
                "controlPlane": { "service": { "serviceType": "LoadBalancer" } },
                "kubernetes": { "version": "v1.36.3", "kubelet": {} },
            },
        }))
        .unwrap();
        Tenant::validate(&object).unwrap()
    }

    fn access(port: u16) -> Access {
        Access {
            host: "192.0.2.1".to_owned(),
            port,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            direct_port: port,
            tunnel: None,
            listeners: None,
            certificate_authority: "ca".to_owned(),
        }
    }

    fn nobody() -> Task {
        let (parts, _server) = operator(&[]);
        let tenant = ObjectRef::new("one").within("a");
        Task::spawn("nothing", &tenant, &parts.ctx, |_, _| {
            std::future::pending()
        })
    }

    #[tokio::test]
    async fn what_may_be_there_is_watched_before_and_what_is_made_from_its_versions_on() {
        for (known, refuses) in [(true, false), (false, false), (false, true)] {
            let (client, asked) = server();
            let refused = Client::new(
                tower::service_fn(|_: Request<Body>| async {
                    Err::<Response<Body>, _>(std::io::Error::other("away"))
                }),
                "default",
            );
            let (mut kept, tenant) = (Kept::new(), tenant());
            let begun = Mutex::new(Vec::new());
            let watch = |_, written: Vec<_>| {
                let asked = asked.load(Ordering::Relaxed);
                begun.lock().unwrap().push((asked, written.len()));
                nobody()
            };
            let client = if refuses { &refused } else { &client };
            let done = kept.keep(client, &tenant, access(6443), known, watch).await;
            assert_eq!(done.is_err(), refuses);
            let again = kept.keep(client, &tenant, access(443), known, watch).await;
            assert_eq!(again.is_err(), refuses);
            let begun = begun.into_inner().unwrap();
            let [(asked, written)] = begun[..] else {
                panic!("one watch for all passes: {begun:?}");
            };
            match (known, refuses) {
                (true, _) => assert_eq!((asked, written), (0, 0)),
                (false, false) => assert!(asked >= written && written > 10, "{asked} {written}"),
                (false, true) => assert_eq!(written, 0),
            }
        }
    }

    #[tokio::test]
    async fn what_has_the_same_inputs_and_was_not_disturbed_is_left_alone() {
        let (client, asked) = server();
        let (mut kept, tenant) = (Kept::new(), tenant());
        let ledger = Arc::clone(&kept.ledger);
        let mut requests = async |port, tenant: &Tenant| {
            let before = asked.load(Ordering::Relaxed);
            let kept = kept.keep(&client, tenant, access(port), false, |_, _| nobody());
            let kept = kept.await;
            kept.unwrap();
            asked.load(Ordering::Relaxed) - before
        };
        assert!(requests(6443, &tenant).await > 10);
        assert_eq!(requests(6443, &tenant).await, 0);
        assert!(requests(443, &tenant).await > 0, "another port");
        let mut changed = tenant.clone();
        changed.generation = 2;
        changed.network.cluster_domain = "other.example".to_owned();
        assert!(requests(443, &changed).await > 0, "another spec");
        assert_eq!(requests(443, &changed).await, 0);

        let keys = ledger.keys();
        let role = keys.iter().find(|key| key.kind() == "ClusterRole").unwrap();
        let deleted = Change {
            key: ObjectKey::of::<ClusterRole>(None, role.name()),
            metadata: ObjectMeta {
                uid: Some("u".to_owned()),
                resource_version: Some("6".to_owned()),
                ..ObjectMeta::default()
            },
            deleted: true,
        };
        ledger.observe(&deleted);
        assert_eq!(requests(443, &changed).await, 1, "it is made again");
        assert_eq!(requests(443, &changed).await, 0);
    }
}
