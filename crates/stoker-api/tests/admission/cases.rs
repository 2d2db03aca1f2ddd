//! The admission tables: what an API server must accept and refuse.
//!
//! A table is a valid `base` object and cases, each a JSON merge patch (RFC 7386) of it. A case
//! with `before` is an update of `base` patched with `before`, on which `status` was reported.

use serde::Deserialize;
use serde_json::Value;

/// One kind's table.
#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    /// A valid object.
    pub(crate) base: Value,
    /// What is done to it.
    pub(crate) cases: Vec<Case>,
}

/// One attempt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// A sentence.
    pub(crate) name: String,
    /// Makes the case an update: merge patch from `base` to the object that is stored.
    pub(crate) before: Option<Value>,
    /// Status of the stored object.
    pub(crate) status: Option<Value>,
    /// Merge patch to the object that is sent: from `base`, or from the stored object.
    pub(crate) patch: Value,
    /// Text that the refusal must contain; accepted when left out.
    pub(crate) refused: Option<String>,
    /// What a real API server says instead, when its schema refuses before CEL is asked.
    pub(crate) server_says: Option<String>,
    /// The refusal is not CEL's but the schema's (length, enum, set, required), which only a real
    /// API server checks.
    #[serde(default)]
    pub(crate) by_schema: bool,
}

impl Table {
    /// Reads a table.
    fn parse(yaml: &str) -> Self {
        serde_saphyr::from_str(yaml).unwrap()
    }

    /// The stored object of `case`, when it is an update.
    pub(crate) fn stored(&self, case: &Case) -> Option<Value> {
        let before = case.before.as_ref()?;
        let mut object = self.base.clone();
        json_patch::merge(&mut object, before);
        Some(object)
    }

    /// The object that `case` sends.
    pub(crate) fn sent(&self, case: &Case) -> Value {
        let mut object = self.stored(case).unwrap_or_else(|| self.base.clone());
        json_patch::merge(&mut object, &case.patch);
        object
    }
}

/// `TenantControlPlane`'s table, with the cases of its larger parts.
pub(crate) fn tenant_control_planes() -> Table {
    let mut table = Table::parse(include_str!("tenant_control_planes.yaml"));
    let parts = [
        include_str!("api_server.yaml"),
        include_str!("audit.yaml"),
        include_str!("authentication.yaml"),
        include_str!("deployments.yaml"),
        include_str!("encryption.yaml"),
        include_str!("hibernation.yaml"),
        include_str!("services.yaml"),
        include_str!("addons.yaml"),
    ];
    for part in parts {
        let cases: Vec<Case> = serde_saphyr::from_str(part).unwrap();
        table.cases.extend(cases);
    }
    table
}

/// `DataStore`'s table.
pub(crate) fn data_stores() -> Table {
    Table::parse(include_str!("data_stores.yaml"))
}

/// `KubeconfigGenerator`'s table.
pub(crate) fn kubeconfig_generators() -> Table {
    Table::parse(include_str!("kubeconfig_generators.yaml"))
}

/// `JoinToken`'s table.
pub(crate) fn join_tokens() -> Table {
    Table::parse(include_str!("join_tokens.yaml"))
}
