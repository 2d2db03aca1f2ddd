//! Which machine this is, by what its kubelet says of it in the Node.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

/// Where a kubelet reads it: the first that there is.
const IDS: &[&str] = &["etc/machine-id", "var/lib/dbus/machine-id"];
const UUIDS: &[&str] = &["sys/class/dmi/id/product_uuid"];

/// The Node of that name is not the one that this machine was.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Node {0:?} is another one than this machine was, and is left alone; where no machine runs under it any more: kubectl delete node {0}"
)]
pub(super) struct Another(pub(super) String);

/// What is not known of it is empty.
#[derive(Debug)]
pub(super) struct Machine {
    id: String,
    uuid: String,
}

impl Machine {
    /// The one with this root directory.
    pub(super) fn at(root: &Path) -> Self {
        Self {
            id: first(root, IDS),
            uuid: first(root, UUIDS),
        }
    }

    /// # Errors
    /// [`Another`].
    pub(super) fn ensure_is(&self, node: &Node) -> Result<()> {
        let info = node
            .status
            .as_ref()
            .and_then(|status| status.node_info.as_ref());
        let Some(info) = info else {
            return Ok(());
        };
        // Machines made of one image may share the first of them.
        let is_other =
            differs(&self.id, &info.machine_id) || differs(&self.uuid, &info.system_uuid);
        ensure!(!is_other, Another(node.name_any()));
        Ok(())
    }
}

/// Of what is not known, nothing is said.
fn differs(here: &str, there: &str) -> bool {
    !here.is_empty() && !there.is_empty() && !here.eq_ignore_ascii_case(there)
}

fn first(root: &Path, paths: &[&str]) -> String {
    let read = |path: &&str| fs::read_to_string(root.join(path)).ok();
    let text = paths.iter().find_map(read).unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(id: &str, uuid: &str) -> Node {
        let empty = "";
        let info = json!({
            "machineID": id, "systemUUID": uuid, "architecture": empty, "bootID": empty, "containerRuntimeVersion": empty,
            "kernelVersion": empty, "kubeProxyVersion": empty, "kubeletVersion": empty, "operatingSystem": empty, "osImage": empty,
        });
        let object = json!({ "metadata": { "name": "w1" }, "status": { "nodeInfo": info } });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_machine_knows_its_node() {
        let root = tempfile::tempdir().unwrap();
        let unknown = Machine::at(root.path());
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(IDS[1], "aa\n");
        let old = Machine::at(root.path());
        write(UUIDS[0], "BB-1\n");
        let this = Machine::at(root.path());
        for (machine, id, uuid, is_it) in [
            (&this, "aa", "bb-1", true),
            (&this, "aa", "", true),
            (&this, "", "", true),
            (&this, "cc", "bb-1", false),
            (&this, "aa", "bb-2", false),
            (&old, "aa", "bb-2", true),
            (&old, "cc", "", false),
            (&unknown, "cc", "bb-2", true),
        ] {
            let found = machine.ensure_is(&node(id, uuid));
            assert_eq!(found.is_ok(), is_it, "{machine:?} {id} {uuid}");
            assert!(found.is_ok() || found.is_err_and(|error| error.is::<Another>()));
        }
        assert!(this.ensure_is(&Node::default()).is_ok());
    }
}
