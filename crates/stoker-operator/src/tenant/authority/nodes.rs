//! Which nodes have certificates of the authority that signs: what they say of themselves, or people of them.

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use stoker_api::labels::{LEFT, NODE_AUTHORITY};
use stoker_control_plane::RotatingAuthority;
use stoker_pki::ca_hash;

use crate::tenant::inside::Inside;
use crate::tenant::state::TenantState;

/// Nodes in one answer.
const PAGE: u32 = 500;
/// Names in a message.
const NAMED: usize = 5;

/// Nodes that are not known to have them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) count: usize,
    /// The first of them.
    names: Vec<String>,
}

impl Behind {
    fn see(&mut self, node: &PartialObjectMeta<Node>, pin: &str) {
        let annotations = node.annotations();
        let said = annotations.get(NODE_AUTHORITY);
        if said.map(String::as_str) == Some(pin) || annotations.contains_key(LEFT) {
            return;
        }
        self.count += 1;
        if self.names.len() < NAMED {
            self.names.push(node.name_any());
        }
    }

    /// The names of the first, and how many more there are.
    pub(super) fn describe(&self) -> String {
        let names = format!(
            "not known to have certificates of it are the nodes {}",
            self.names.join(", ")
        );
        match self.count - self.names.len() {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}

/// Asks the tenant.
///
/// # Errors
/// In words: why it cannot be asked.
pub(super) async fn behind(
    authority: &RotatingAuthority,
    state: &TenantState,
) -> Result<Behind, String> {
    let pin = ca_hash(authority.signer().certificate()).map_err(|error| error.to_string())?;
    let client = match &*state.inside.lock().await {
        Inside::Open { connection, .. } => connection.client.clone(),
        Inside::Closed | Inside::Starting { .. } => {
            return Err("no API server is connected that could be asked for the nodes".to_owned());
        }
    };
    let nodes: Api<Node> = Api::all(client);
    let mut behind = Behind::default();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = nodes.list_metadata(&params).await;
        let page = page.map_err(|error| format!("the nodes cannot be listed: {error}"))?;
        for node in &page.items {
            behind.see(node, &pin);
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_that_says_nothing_or_another_authority_is_behind() {
        let node = |name: &str, said: Option<&str>| -> PartialObjectMeta<Node> {
            let mut metadata = json!({ "name": name });
            if let Some(said) = said {
                metadata["annotations"] = json!({ "stoker.dev/authority": said });
            }
            serde_json::from_value(json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata,
            }))
            .unwrap()
        };
        let mut behind = Behind::default();
        behind.see(&node("a", Some("sha256:1")), "sha256:1");
        assert_eq!(behind, Behind::default());
        behind.see(&node("b", None), "sha256:1");
        behind.see(&node("c", Some("sha256:2")), "sha256:1");
        assert_eq!(behind.count, 2);
        assert!(behind.describe().ends_with(" b, c"), "{behind:?}");
        for name in ["d", "e", "f", "g"] {
            behind.see(&node(name, None), "sha256:1");
        }
        let said = behind.describe();
        assert!(said.ends_with(" b, c, d, e, f and 1 more"), "{said}");
    }
}
