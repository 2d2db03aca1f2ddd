//! What `kubectl get --output wide` says.

use std::collections::BTreeMap;

use stoker_lab::versions::KubernetesVersion;

use crate::install::{SERVER_SIDE, Server};

const TENANT: &str = r#"{
  "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
  "metadata": { "name": "one" },
  "spec": {
    "controlPlane": { "service": { "serviceType": "ClusterIP" } },
    "kubernetes": { "version": "v1.36.3" }
  }
}"#;
const STATUS: &str = r#"{ "status": {
  "controlPlaneEndpoint": "192.0.2.7:6443",
  "kubernetesResources": { "version": { "version": "v1.35.4", "status": "Upgrading" } },
  "storage": {
    "driver": "etcd", "dataStoreName": "pool", "setup": { "schema": "a", "user": "a" }
  },
  "conditions": [
    { "type": "Valid", "status": "True", "reason": "Accepted", "message": "fine",
      "lastTransitionTime": "2026-01-01T00:00:00Z" },
    { "type": "Ready", "status": "False", "reason": "PodsStarting", "message": "no pod has an address",
      "lastTransitionTime": "2026-01-01T00:00:00Z" },
    { "type": "Stuck", "status": "True", "reason": "PodsStarting", "message": "look",
      "lastTransitionTime": "2026-01-01T00:00:00Z" }
  ]
}}"#;

/// One line of a table whose columns are two spaces or more apart, by heading.
fn row(table: &str) -> BTreeMap<String, String> {
    let (heads, line) = table.split_once('\n').unwrap();
    let mut starts: Vec<usize> = heads
        .match_indices(|c: char| c != ' ')
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || heads.get(..at).unwrap().ends_with("  "))
        .collect();
    starts.push(table.len());
    let cell = |text: &str, from: usize, to: usize| {
        let text = text.get(from..to.min(text.len())).unwrap_or_default();
        text.trim().to_owned()
    };
    starts
        .windows(2)
        .map(|range| {
            (
                cell(heads, range[0], range[1]),
                cell(line, range[0], range[1]),
            )
        })
        .collect()
}

pub(crate) async fn wide_columns_answer_the_first_three_questions(version: KubernetesVersion) {
    let server = Server::start(version).await;
    server.install(&SERVER_SIDE);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tenant.json");
    std::fs::write(&file, TENANT).unwrap();
    server.kubectl(&["create", "--filename", &file.display().to_string()]);
    let patch = [
        "patch",
        "tcp",
        "one",
        "--subresource=status",
        "--type=merge",
        "--patch",
        STATUS,
    ];
    server.kubectl(&patch);
    let shown = row(&server.kubectl(&["get", "tcp", "one", "--output=wide"]));
    let is = |column: &str| shown.get(column).map(String::as_str);
    // Is it ready, and why not?
    assert_eq!(is("READY"), Some("False"), "{shown:?}");
    assert_eq!(is("REASON"), Some("PodsStarting"));
    assert_eq!(is("MESSAGE"), Some("no pod has an address"));
    assert_eq!(is("STUCK"), Some("True"));
    // Which version, and where is it reached?
    assert_eq!(is("VERSION"), Some("v1.36.3"));
    assert_eq!(is("INSTALLED VERSION"), Some("v1.35.4"));
    assert_eq!(is("CONTROL-PLANE ENDPOINT"), Some("192.0.2.7:6443"));
    // Where is its data?
    assert_eq!(is("DATASTORE"), Some("pool"));
    let narrow = row(&server.kubectl(&["get", "tcp", "one"]));
    assert!(
        narrow.contains_key("AGE") && !narrow.contains_key("MESSAGE"),
        "{narrow:?}"
    );
}
