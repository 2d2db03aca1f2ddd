//! From a validated tenant to the objects of its control plane on the management cluster.
