//! Certificate authorities, leaf certificates, kubeconfigs, service-account keys and rotation decisions.
