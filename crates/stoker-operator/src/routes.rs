//! Routes to control planes by hostname, as far as the management cluster is concerned: which kinds of them any
//! tenant uses, and in which version.

use std::sync::Mutex;

use kube::core::{ApiResource, GroupVersionKind};
use stoker_control_plane::{TLS_ROUTE_GROUP, TLS_ROUTE_KIND, TLS_ROUTE_PLURAL, TLS_ROUTE_VERSIONS};
use tokio::sync::Notify;

use crate::tenant::state::lock;

/// What is known of the kinds. Nothing is asked of the API server before the first tenant uses one.
#[derive(Default)]
pub struct Routes {
    /// Told when a tenant uses an `Ingress`.
    pub ingresses_used: Notify,
    /// Told when a tenant uses a `TLSRoute`.
    pub tls_routes_used: Notify,
    served: Mutex<Served>,
}

/// Whether the management cluster serves a kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Served {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// It does not.
    Missing,
    /// It does, in this version.
    As(ApiResource),
}

impl Routes {
    /// Whether `TLSRoute`s are served.
    pub fn tls_routes(&self) -> Served {
        lock(&self.served).clone()
    }

    /// Records it; true if that is news.
    pub fn found_tls_routes(&self, served: Served) -> bool {
        let mut known = lock(&self.served);
        let news = *known != served;
        *known = served;
        news
    }
}

/// Looks for the best version in which `TLSRoute`s are served.
///
/// # Errors
/// The API server does not say.
pub async fn look_for_tls_routes(client: &kube::Client) -> Result<Served, kube::Error> {
    for version in TLS_ROUTE_VERSIONS {
        let kind = GroupVersionKind::gvk(TLS_ROUTE_GROUP, version, TLS_ROUTE_KIND);
        match client.list_api_group_resources(&kind.api_version()).await {
            Ok(found)
                if found
                    .resources
                    .iter()
                    .any(|found| found.name == TLS_ROUTE_PLURAL) =>
            {
                let resource = ApiResource::from_gvk_with_plural(&kind, TLS_ROUTE_PLURAL);
                return Ok(Served::As(resource));
            }
            Ok(_) => {}
            // In plain text, where not even the group is there.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Served::Missing)
}
