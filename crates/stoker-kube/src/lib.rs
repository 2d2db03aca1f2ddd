//! The only code that writes to an API server: server-side apply, status, events, lease.
pub use kube::api::ApiResource;

mod apply;
mod desired;
mod error;
mod fingerprint;
mod ledger;
mod observe;

pub use apply::{Outcome, Writer};
pub use desired::{Desired, ObjectKey};
pub use error::{Error, category_of};
pub use fingerprint::Fingerprint;
pub use ledger::{Ledger, Observation};
pub use observe::{Change, OwnedWatch, watch_owned};
