//! The pool of etcd clusters: prefixes, grants, versions, owner records.
