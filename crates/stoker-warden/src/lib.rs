//! The warden: the one process of ours inside a tenant's control-plane pod.
//!
//! Owns: the guard, an authorization webhook that the tenant's kube-apiserver asks on loopback before
//! every other authorizer. What it is asked, it refuses: which requests those are stands in the API
//! server's own configuration (`stoker-control-plane`, `authorization`), so that all others cost
//! nothing, and so that they are refused too while the guard is away. Activity: of tenants that sleep
//! when idle it is told who asks, and tells the operator when somebody last did. And the tunnel's near end, by
//! which the API server reaches its tenant's network, and nothing else.
//!
//! Must not: hold a credential but the serving certificate, know the management cluster, keep state on disk, or
//! need the operator. It dials nobody but, at its own end, the API server beside it, to see whether that one still
//! answers.
//!
//! ```text
//!  kube-apiserver ── SubjectAccessReview, 127.0.0.1 ──► serve ──► guard::answer, Activity::answer
//!  kubelet ───────── GET /livez, the pod's address ───► serve ◄── GET /metrics, whoever the provider lets in
//!  kube-apiserver ── CONNECT, a socket in the pod ────► tunnel ◄── connections of the tenant's nodes
//! ```

pub mod activity;
pub mod guard;
pub mod metrics;
pub mod serve;
pub mod tunnel;
