//! Objects of a cluster read from YAML, and the rules of its node `here`.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;
use stoker_lab::network::{CniAddresses, PodFacts, Ruleset, compile, namespace_labels};

#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) pods: Vec<Pod>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) policies: Vec<NetworkPolicy>,
}

impl Objects {
    pub(crate) fn parse(yaml: &str) -> Self {
        let mut objects = Self::default();
        for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap() {
            match object["kind"].as_str() {
                Some("Pod") => objects.pods.push(serde_json::from_value(object).unwrap()),
                Some("Namespace") => objects
                    .namespaces
                    .push(serde_json::from_value(object).unwrap()),
                Some("NetworkPolicy") => {
                    objects
                        .policies
                        .push(serde_json::from_value(object).unwrap());
                }
                kind => panic!("unexpected kind {kind:?}"),
            }
        }
        objects
    }

    pub(crate) fn compile(&self) -> Ruleset {
        self.compile_with(&CniAddresses::new())
    }

    pub(crate) fn compile_with(&self, early: &CniAddresses) -> Ruleset {
        let pods = PodFacts::collect(&self.pods, "here", early);
        compile(
            &pods,
            &namespace_labels(&self.namespaces),
            &self.policies,
            "cni0",
        )
    }
}
