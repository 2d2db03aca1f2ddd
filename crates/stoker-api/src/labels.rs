//! Labels and annotations on every object that Stoker makes.

/// Who manages an object: [`MANAGED_BY_VALUE`] on everything of ours.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "stoker";
/// The role of an object within its tenant.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// The tenant's name again, as `app.kubernetes.io` labels have it.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// The name of the application: `tenant-control-plane`.
pub const NAME: &str = "app.kubernetes.io/name";
/// What the application belongs to: `stoker`.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// The tenant that an object belongs to; with its namespace the tenant's identity. The selector of
/// the control plane's pods is this label alone, as in the reference contract.
pub const TENANT: &str = "stoker.dev/name";
/// The contract's label for everything of ours: `stoker`.
pub const PROJECT: &str = "stoker.dev/project";
/// Pauses reconciliation of the object that carries it, whatever its value.
pub const PAUSED: &str = "stoker.dev/paused";
/// Finalizer of a `TenantControlPlane`: its state in the pool is still there.
pub const FINALIZER: &str = "stoker.dev/data-store";
/// Finalizer of a Secret whose keys cannot be made anew: it goes only when they are safe elsewhere or the tenant is
/// deleted.
pub const KEY_FINALIZER: &str = "stoker.dev/key";
/// Set by a person to the storage id: delete the tenant although its pool is gone, leaving there
/// whatever is left.
pub const ABANDON_DATA: &str = "stoker.dev/abandon-data";
/// The `KubeconfigGenerator` that a kubeconfig was made by.
pub const GENERATED_BY: &str = "stoker.dev/managed-by";
/// The tenant that a kubeconfig was made for.
pub const GENERATED_FOR: &str = "stoker.dev/managed-for";
/// Finalizer of a `KubeconfigGenerator`: its Secrets are still there.
pub const GENERATOR_FINALIZER: &str = "stoker.dev/kubeconfigs";
/// The `JoinToken` that a Secret was made for.
pub const JOIN_TOKEN: &str = "stoker.dev/join-token";
/// Finalizer of a `JoinToken`: what it made inside the tenant is still there.
pub const JOIN_TOKEN_FINALIZER: &str = "stoker.dev/join-token";
/// Taint of a node that registers, until it has the labels and taints of the token that it joined by: no pod lands before.
pub const JOINING: &str = "stoker.dev/joining";
/// Annotation of a node that has left, with the time: its name is free.
pub const LEFT: &str = "stoker.dev/left";
/// On a Node: pin of the authority whose certificates its kubelet has; set by `stoker-node`, or by people for a node without it.
pub const NODE_AUTHORITY: &str = "stoker.dev/authority";
/// Label of a Node whose `stoker-node run` is the listener for its pods ([`OF_HOST`]): the add-on's pods stay away.
pub const LISTENER: &str = "stoker.dev/listener";
/// Label of a Node whose `stoker-node run` keeps its tunnel.
pub const TUNNEL: &str = "stoker.dev/tunnel";
/// The value of these.
pub const OF_HOST: &str = "host";
/// Model of a node's GPUs, as NVIDIA's feature discovery and `stoker-node` label it.
pub const GPU_PRODUCT: &str = "nvidia.com/gpu.product";
/// Memory of each, MiB.
pub const GPU_MEMORY: &str = "nvidia.com/gpu.memory";
/// How many GPUs a node's machine has.
pub const GPU_COUNT: &str = "nvidia.com/gpu.count";
/// How many of them the driver answers for; `stoker-node` says it.
pub const GPU_HEALTHY: &str = "stoker.dev/gpu.healthy";
/// Group, in a tenant, of whoever asks with a `JoinToken`. The controller manager approves nothing for it.
pub const JOINERS: &str = "system:bootstrappers:stoker:join-token";
