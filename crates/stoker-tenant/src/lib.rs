//! The objects inside a tenant cluster: what kubeadm would have put there.
