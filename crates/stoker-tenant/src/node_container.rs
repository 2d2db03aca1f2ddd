//! The container of `stoker-node` in the pods that run on a tenant's nodes.

use k8s_openapi::api::core::v1::{Capabilities, Container, SeccompProfile, SecurityContext};
use stoker_api::v1alpha1::Resources;

/// It asks for little.
const CPU: &str = "1m";
/// As measured for the tunnel (PSS): 2.7 MB, and 5.5 MB with 1,000 streams open.
const MEMORY: &str = "8Mi";

/// As root, with nothing else that root may do but `capability`.
pub(crate) fn container(
    name: &str,
    image: String,
    args: Vec<String>,
    asked: Option<&Resources>,
    capability: Option<&str>,
) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(image),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/stoker-node".to_owned()]),
        args: Some(args),
        resources: Some(Resources::or_requests(asked, CPU, MEMORY)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: capability.map(|capability| vec![capability.to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}
