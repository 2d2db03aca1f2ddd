//! When new contents of a file must restart the pods.

use sha2::{Digest as _, Sha256};

use crate::{Inputs, audit};

/// Annotation of the pod template: a checksum of what is read only when a pod starts. Pods of another one are to be replaced.
pub const ANNOTATION: &str = "stoker.dev/restart-checksum";

/// SHA-256 of the file contents that some component reads only at its start: the service-account
/// keys, the pool's authority (`kube-apiserver --etcd-cafile`), the audit policy, and the cluster authority
/// (`kube-controller-manager --root-ca-file`, and inline in its and the scheduler's kubeconfig). The front-proxy authority is
/// reloaded, but nothing says when; that it was is what its replacement waits for.
///
/// All other files are reloaded when they change, and flags change the template by themselves.
pub(super) fn checksum(inputs: &Inputs<'_>) -> String {
    let service_account = &inputs.keys.service_account;
    let trusted = inputs.keys.certificate_authority.trusted();
    let front_proxy = inputs.keys.front_proxy_authority.trusted();
    let mut digest = Sha256::new();
    for part in [
        service_account.public_pem(),
        service_account.private_pem().as_pem(),
        &trusted,
        &front_proxy,
        &inputs.storage.certificate_authority,
    ] {
        // Length first, so that no two lists of parts look alike.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(audit::policy(&inputs.tenant.audit));
    hex::encode(digest.finalize())
}
