//! The management binary: watches, reconcile loops, metrics.
