//! The `Ingress` or `TLSRoute` of a tenant that asks for one. What is wrong with it is a condition of its own, and
//! keeps nothing else from being brought up to date.

use k8s_openapi::api::networking::v1::Ingress;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde::de::DeserializeOwned;
use stoker_api::labels::{MANAGED_BY, MANAGED_BY_VALUE, TENANT};
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::{
    AccessPoint, GatewayStatus, IngressLoadBalancer, IngressPoint, IngressStatus, RouteParent,
    RouteReference, TenantControlPlane,
};
use stoker_control_plane::{self as control_plane, Exposure, Names};
use stoker_kube::Desired;

use super::error::Error;
use super::state::{TenantState, lock};
use super::status::{Aspect, Check, Findings};
use crate::context::Context;
use crate::routes::Served;

/// What the controllers of a tenant's routes last said, as far as this process has heard of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    points: Option<Vec<IngressPoint>>,
    parents: Option<Vec<RouteParent>>,
}

/// What the controller of one route says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Where the controller of an `Ingress` listens.
    Listens(Vec<IngressPoint>),
    /// What Gateways make of a `TLSRoute`.
    Parents(Vec<RouteParent>),
}

impl Said {
    /// Read from an `Ingress`.
    #[must_use]
    pub fn of_ingress(object: &DynamicObject) -> Self {
        Self::Listens(at(object, "/status/loadBalancer/ingress"))
    }

    /// Read from a `TLSRoute`.
    #[must_use]
    pub fn of_tls_route(object: &DynamicObject) -> Self {
        Self::Parents(at(object, "/status/parents"))
    }
}

/// What cannot be read says nothing.
fn at<T: DeserializeOwned + Default>(object: &DynamicObject, path: &str) -> T {
    let found = object.data.pointer(path).cloned().unwrap_or_default();
    serde_json::from_value(found).unwrap_or_default()
}

impl Heard {
    /// Remembers it; true if that is news.
    pub fn hear(&mut self, said: Said) -> bool {
        let before = self.clone();
        match said {
            Said::Listens(points) => self.points = Some(points),
            Said::Parents(parents) => self.parents = Some(parents),
        }
        *self != before
    }
}

/// What status shows of the routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routed {
    /// The `Ingress`.
    pub ingress: Option<IngressStatus>,
    /// The `TLSRoute`.
    pub gateway: Option<GatewayStatus>,
}

/// What became of one route.
enum Done {
    /// There is none, and none is asked for.
    Absent,
    /// It is asked for and not recorded yet.
    Recorded,
    /// It is as it should be.
    Applied,
    /// Nobody knows yet whether the management cluster has such a kind.
    Unknown,
    /// It has not.
    Missing,
}

/// Makes, mends or removes the routes. Status names a route before it is made, so that whatever happens in between it is
/// known to be ours to remove.
///
/// # Errors
/// The API server refused one of them; the findings say so too.
pub(super) async fn keep(
    object: &TenantControlPlane,
    tenant: &Tenant,
    exposure: &Exposure,
    state: &TenantState,
    ctx: &Context,
    findings: &mut Findings,
) -> Result<(), Error> {
    let before = recorded(object, state);
    let asked = (tenant.ingress.is_some(), tenant.gateway.is_some());
    if asked == (false, false) && before == Routed::default() {
        findings.routes = Some(before);
        return Ok(());
    }
    let pass = Pass { tenant, state, ctx };
    let ingress = pass.ingress(before.ingress.is_some()).await;
    let gateway = pass.tls_route(before.gateway.is_some()).await;
    findings.again = [&ingress, &gateway]
        .iter()
        .any(|done| matches!(done, Ok(Done::Recorded)));
    let heard = lock(&state.routes).clone();
    let points = heard.points.or_else(|| said_by_ingress(&before));
    let parents = heard.parents.or_else(|| said_by_gateways(&before));
    let now = Routed {
        ingress: Some(ingress_status(tenant, points)),
        gateway: Some(gateway_status(tenant, exposure, parents)),
    };
    note(&ingress, None, findings);
    note(&gateway, refused(&now), findings);
    findings.routes = Some(Routed {
        ingress: left(&ingress, asked.0, now.ingress, before.ingress),
        gateway: left(&gateway, asked.1, now.gateway, before.gateway),
    });
    ingress.and(gateway).map(|_| ())
}

fn said_by_ingress(before: &Routed) -> Option<Vec<IngressPoint>> {
    Some(before.ingress.as_ref()?.load_balancer.ingress.clone())
}

fn said_by_gateways(before: &Routed) -> Option<Vec<RouteParent>> {
    Some(before.gateway.as_ref()?.parents.clone())
}

/// What status says: of what is asked for its present state, of the rest what could not be removed.
fn left<S>(
    done: &Result<Done, Error>,
    asked: bool,
    now: Option<S>,
    before: Option<S>,
) -> Option<S> {
    match (asked, done) {
        (true, _) => now,
        (false, Ok(_)) => None,
        (false, Err(_)) => before,
    }
}

fn note(done: &Result<Done, Error>, refused: Option<String>, findings: &mut Findings) {
    let check = match (done, refused) {
        (Ok(Done::Absent), _) => return,
        (Ok(Done::Recorded | Done::Unknown), _) => {
            Check::fails("RoutePending", "the route is about to be made")
        }
        (Ok(Done::Missing), _) => Check::fails(
            "GatewayAPIMissing",
            "the management cluster serves no TLSRoute: install the CRDs of the Gateway API (gateway.networking.k8s.io), 1.5 or later, or the experimental ones before; they are looked for again every ten seconds",
        ),
        (Ok(Done::Applied), Some(refused)) => Check::fails("RouteNotAccepted", refused),
        (Ok(Done::Applied), None) => Check::holds("Applied", "the route is applied"),
        (Err(error), _) => Check::fails(error.category(), error.describe()),
    };
    findings.found(Aspect::Routed, check);
}

/// What the status says that there may be: as last written, or, before that, as read.
fn recorded(object: &TenantControlPlane, state: &TenantState) -> Routed {
    let written = lock(&state.written);
    let status = written.as_ref().or(object.status.as_ref());
    status.map_or_else(Routed::default, |status| Routed {
        ingress: status.kubernetes_resources.ingress.clone(),
        gateway: status.kubernetes_resources.gateway.clone(),
    })
}

/// What a pass works with.
struct Pass<'a> {
    tenant: &'a Tenant,
    state: &'a TenantState,
    ctx: &'a Context,
}

impl Pass<'_> {
    async fn ingress(&self, recorded: bool) -> Result<Done, Error> {
        let wanted = control_plane::ingress(self.tenant);
        if wanted.is_none() && !recorded {
            return Ok(Done::Absent);
        }
        self.ctx.routes.ingresses_used.notify_one();
        let wanted = wanted.as_ref().map(Desired::of).transpose()?;
        let kind = ApiResource::erase::<Ingress>(&());
        self.keep(&kind, wanted, recorded).await
    }

    async fn tls_route(&self, recorded: bool) -> Result<Done, Error> {
        let asked = self.tenant.gateway.is_some();
        if !asked && !recorded {
            return Ok(Done::Absent);
        }
        self.ctx.routes.tls_routes_used.notify_one();
        let kind = match self.ctx.routes.tls_routes() {
            Served::As(kind) => kind,
            // It went with its kind.
            Served::Missing if !asked => return Ok(Done::Absent),
            Served::Missing => return Ok(Done::Missing),
            Served::Unknown => return Ok(Done::Unknown),
        };
        let wanted = control_plane::tls_route(self.tenant, &kind.version);
        let wanted = wanted.map(|route| Desired::of_kind(&kind, &route));
        self.keep(&kind, wanted.transpose()?, recorded).await
    }

    async fn keep(
        &self,
        kind: &ApiResource,
        wanted: Option<Desired>,
        recorded: bool,
    ) -> Result<Done, Error> {
        let (writer, ledger) = (&self.ctx.writer, &self.state.ledger);
        let Some(wanted) = wanted else {
            let ours = format!(
                "{TENANT}={},{MANAGED_BY}={MANAGED_BY_VALUE}",
                self.tenant.name
            );
            let namespace = Some(self.tenant.namespace.as_str());
            let kinds = std::slice::from_ref(kind);
            for key in writer.delete_labelled(kinds, namespace, &ours).await? {
                ledger.forget(&key);
            }
            return Ok(Done::Absent);
        };
        if !recorded {
            return Ok(Done::Recorded);
        }
        writer.apply_all(vec![wanted], ledger, 1).await?;
        Ok(Done::Applied)
    }
}

/// Why no Gateway takes the route, if one has said so.
fn refused(now: &Routed) -> Option<String> {
    let parents = &now.gateway.as_ref()?.parents;
    if parents.iter().any(is_accepted) {
        return None;
    }
    parents.iter().find_map(|parent| {
        let mut conditions = parent.conditions.iter();
        let refused =
            conditions.find(|found| found.type_ == "Accepted" && found.status == "False")?;
        let (gateway, message) = (&parent.parent_ref.name, &refused.message);
        Some(format!(
            "the Gateway {gateway} does not take the route: {message}"
        ))
    })
}

fn is_accepted(parent: &RouteParent) -> bool {
    let mut conditions = parent.conditions.iter();
    conditions.any(|found| found.type_ == "Accepted" && found.status == "True")
}

fn ingress_status(tenant: &Tenant, points: Option<Vec<IngressPoint>>) -> IngressStatus {
    IngressStatus {
        name: Names::of(tenant).ingress,
        namespace: tenant.namespace.clone(),
        load_balancer: IngressLoadBalancer {
            ingress: points.unwrap_or_default(),
        },
    }
}

fn gateway_status(
    tenant: &Tenant,
    exposure: &Exposure,
    parents: Option<Vec<RouteParent>>,
) -> GatewayStatus {
    let parents = parents.unwrap_or_default();
    let dialed = exposure.endpoint.as_ref();
    let accepted = parents.iter().filter(|parent| is_accepted(parent));
    let point = |parent: &RouteParent| {
        let dialed = dialed?;
        let port = parent.parent_ref.port.unwrap_or_else(|| dialed.port.into());
        let url = format!("https://{}:{port}", dialed.host);
        Some(AccessPoint {
            kind: "Hostname".to_owned(),
            value: url.clone(),
            port,
            urls: vec![url],
        })
    };
    GatewayStatus {
        route_ref: RouteReference {
            name: Names::of(tenant).tls_route,
        },
        access_points: accepted.filter_map(point).collect(),
        parents,
    }
}
