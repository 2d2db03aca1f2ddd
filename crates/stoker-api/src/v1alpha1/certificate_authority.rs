//! `spec.kubernetes.certificateAuthority`: when a tenant's authorities are replaced.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Default of [`CertificateAuthority::former_trust_seconds`]: a week, as long as a join token lives at most.
pub(crate) const WEEK: i64 = 7 * 24 * 3600;

/// The authorities that sign the tenant's certificates: the cluster's, and that of the front proxy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateAuthority {
    /// A higher number makes others, which take the place of these. At birth: 0, or this.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// How long certificates of the former ones are accepted at least once others sign, in seconds; and in any case until
    /// each node has its own anew. Default: 604800, a week.
    #[serde(default = "week")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub former_trust_seconds: i64,
}

impl Default for CertificateAuthority {
    fn default() -> Self {
        Self {
            generation: 0,
            former_trust_seconds: WEEK,
        }
    }
}

fn week() -> i64 {
    WEEK
}
