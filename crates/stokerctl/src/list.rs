//! The fleet, and why whatever is not Ready is not.

use anyhow::Result;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use stoker_api::labels::PAUSED;
use stoker_api::v1alpha1::{TenantControlPlane, VersionState};

use crate::cli::{Format, ListArguments};
use crate::connect::{Target, explain};
use crate::duration::age;
use crate::print::{json as to_json, note, out, yaml};
use crate::table::render;

/// Between pages of a large fleet.
const PAGE: u32 = 500;

/// Prints the fleet.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn list(target: &Target, wanted: &ListArguments) -> Result<()> {
    let connection = target.connect().await?;
    let client = connection.client.clone();
    let tenants: Api<TenantControlPlane> = match target.namespace() {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut found = read(&tenants, wanted.selector.as_deref()).await?;
    if wanted.not_ready {
        found.retain(is_amiss);
    }
    found.sort_by_key(|tenant| (tenant.namespace(), tenant.name_any()));
    let text = match wanted.output {
        Format::Json => to_json(&objects(&found))?,
        Format::Yaml => yaml(&objects(&found))?,
        Format::Table | Format::Wide if found.is_empty() => {
            note("no tenants found");
            return Ok(());
        }
        Format::Table => table(&found, false, Timestamp::now()),
        Format::Wide => table(&found, true, Timestamp::now()),
    };
    out(&text)
}

async fn read(
    tenants: &Api<TenantControlPlane>,
    selector: Option<&str>,
) -> Result<Vec<TenantControlPlane>> {
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = selector.map(str::to_owned);
    let mut found = Vec::new();
    loop {
        let page = tenants.list(&params).await.map_err(explain)?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

fn objects(tenants: &[TenantControlPlane]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": tenants })
}

/// A column: its heading, whether only the wide table has it, and what it says.
type Column = (&'static str, bool, fn(&Row) -> &str);

const COLUMNS: [Column; 11] = [
    ("NAMESPACE", false, |row| &row.namespace),
    ("NAME", false, |row| &row.name),
    ("VERSION", false, |row| &row.version),
    ("STATUS", false, |row| &row.status),
    ("SINCE", true, |row| &row.since),
    ("PODS", true, |row| &row.pods),
    ("DATASTORE", true, |row| &row.data_store),
    ("STORAGE-ID", true, |row| &row.storage_id),
    ("ENDPOINT", false, |row| &row.endpoint),
    ("AGE", false, |row| &row.age),
    ("WHY", false, |row| &row.why),
];

fn table(tenants: &[TenantControlPlane], wide: bool, now: Timestamp) -> String {
    let columns = COLUMNS
        .iter()
        .filter(|(_, only_wide, _)| wide || !only_wide);
    let columns: Vec<_> = columns.collect();
    let heading: Vec<_> = columns.iter().map(|(heading, ..)| *heading).collect();
    let rows: Vec<Vec<_>> = tenants
        .iter()
        .map(|tenant| {
            let row = Row::of(tenant, now);
            let entries = columns.iter().map(|(.., says)| says(&row).to_owned());
            entries.collect()
        })
        .collect();
    render(&heading, &rows)
}

/// What is said of one tenant.
struct Row {
    namespace: String,
    name: String,
    version: String,
    status: String,
    /// How long it has been Ready or not.
    since: String,
    pods: String,
    data_store: String,
    storage_id: String,
    endpoint: String,
    age: String,
    why: String,
}

impl Row {
    fn of(tenant: &TenantControlPlane, now: Timestamp) -> Self {
        let status = tenant.status.as_ref();
        let resources = status.map(|status| &status.kubernetes_resources);
        let ago = |time: Timestamp| age(now.duration_since(time).as_secs());
        let created = tenant.creation_timestamp().map(|created| ago(created.0));
        let storage = status.and_then(|status| status.storage.as_ref());
        let endpoint = status.and_then(|status| status.control_plane_endpoint.clone());
        let ready = ready(tenant).map(|ready| ago(ready.last_transition_time.0));
        let seen = resources.map_or(0, |resources| resources.deployment.ready_replicas);
        let replicas = tenant.spec.control_plane.deployment.replicas;
        Self {
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
            version: version(tenant),
            status: state(tenant),
            since: or_dash(ready),
            pods: format!("{seen}/{replicas}"),
            data_store: or_dash(storage.map(|storage| storage.data_store_name.clone())),
            storage_id: or_dash(storage.map(|storage| storage.setup.schema.clone())),
            endpoint: or_dash(endpoint),
            age: or_dash(created),
            why: why(tenant),
        }
    }
}

fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| "-".to_owned())
}

/// The release that runs, and the one it is on its way to.
fn version(tenant: &TenantControlPlane) -> String {
    let wanted = &tenant.spec.kubernetes.version;
    let status = tenant.status.as_ref();
    let installed = status.and_then(|status| status.kubernetes_resources.version.version.as_ref());
    match installed {
        Some(installed) if installed != wanted => format!("{installed}->{wanted}"),
        _ => wanted.clone(),
    }
}

/// The state in one word, and whether the operator leaves it alone.
fn state(tenant: &TenantControlPlane) -> String {
    let state = match (tenant.metadata.deletion_timestamp.is_some(), &tenant.status) {
        (true, _) => VersionState::Deleting,
        (false, Some(status)) => status.kubernetes_resources.version.status,
        (false, None) => VersionState::Provisioning,
    };
    let paused = if tenant.annotations().contains_key(PAUSED) {
        ",Paused"
    } else {
        ""
    };
    format!("{state:?}{paused}")
}

fn ready(
    tenant: &TenantControlPlane,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let mut conditions = tenant.status.as_ref()?.conditions.iter();
    conditions.find(|condition| condition.type_ == "Ready")
}

/// Whether it should be Ready and is not, or is on its way out.
fn is_amiss(tenant: &TenantControlPlane) -> bool {
    let ready = ready(tenant);
    let fine = ready.is_some_and(|ready| ready.status == "True" || ready.reason == "Sleeping");
    !fine || tenant.metadata.deletion_timestamp.is_some()
}

/// Reason and message of what keeps it from being Ready, or of what somebody should know; nothing of one that is fine.
fn why(tenant: &TenantControlPlane) -> String {
    let mut parts = Vec::new();
    if let Some(reason) = tenant.annotations().get(PAUSED) {
        parts.push(match reason.as_str() {
            "" | "true" => "paused: the operator leaves it alone".to_owned(),
            reason => format!("paused: {reason}"),
        });
    }
    if is_amiss(tenant) {
        parts.push(match ready(tenant) {
            Some(ready) => format!("{}: {}", ready.reason, ready.message),
            None => "NotLookedAt: the operator has not written a status: does it run?".to_owned(),
        });
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests;
