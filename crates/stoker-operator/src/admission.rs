//! The validating webhook: what would break a tenant's pod is refused when it is asked for, with the API server's own
//! reason.
//!
//! ```text
//!  API server ──AdmissionReview──► server ──► review ──► what the spec would give ──dryRun=All──► API server
//!       ▲                            ▲          │
//!       │ caBundle                   │ leaf     └──► fields of the spec, in the words of whoever wrote it
//!       └────── keeper ──► Secret ───┘
//! ```
//! Every replica serves; the one that leads keeps the certificates. CEL in the CRDs remains the hard line: the webhook's
//! failure policy is `Ignore`, and what slips through while no operator answers is told by the tenant's conditions.

mod authority;
mod fields;
mod keeper;
mod orders;
mod review;
mod server;
mod serving;
mod verdict;

use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;

pub use keeper::keep;
pub use review::Reviewer;

/// Name of the `ValidatingWebhookConfiguration` whose `caBundle` the operator keeps.
pub const CONFIGURATION: &str = "stoker-operator";
/// Name of the Secret with the certificates, in the operator's namespace.
pub const SECRET: &str = "stoker-webhook-certificates";
/// Path that reviews of tenants are sent to.
pub const TENANTS: &str = "/validate-tenantcontrolplane";

/// Serves the webhook at `address` until the process ends.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    client: Client,
    namespace: &str,
    reviewer: Arc<Reviewer>,
) -> anyhow::Result<()> {
    let serving = Arc::new(serving::Serving::default());
    tokio::select! {
        ended = server::serve(address, Arc::clone(&serving), reviewer) => ended,
        () = serving.follow(client, namespace) => anyhow::bail!("the watch of Secret {SECRET} ended"),
    }
}
