//! Where the restricted profile of the Pod Security Standards leaves a choice
//! (kubernetes.io/docs/concepts/security/pod-security-standards).

/// The only capability that a container may add.
pub const CAPABILITY: &str = "NET_BIND_SERVICE";

/// Types of seccomp and `AppArmor` profiles.
pub const PROFILE_TYPES: [&str; 2] = ["Localhost", "RuntimeDefault"];

/// `SELinux` types of containers; users and roles are never free to choose.
pub const SELINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// Kernel settings that a pod has for itself.
pub const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
