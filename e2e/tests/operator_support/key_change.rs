//! Keys of the tenant `one` in the namespace `a` that change by steps: their Secret, what is said of them, and their sealed copy
//! in the pool.

use std::collections::BTreeMap;
use std::process::Stdio;

use base64::Engine as _;
use k8s_openapi::ByteString;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::bare::{Bare, Operator, until};

/// A Secret's entries.
pub(crate) type Entries = BTreeMap<String, ByteString>;

/// Those of one.
pub(crate) async fn entries(bare: &Bare, secret: &str) -> Entries {
    let found = bare.secrets("a").get(secret).await.unwrap();
    found.data.unwrap()
}

/// One of them, as text; empty where it is not there.
pub(crate) async fn entry(bare: &Bare, secret: &str, name: &str) -> String {
    let found = entries(bare, secret).await.remove(name);
    found.map_or(String::new(), |bytes| String::from_utf8(bytes.0).unwrap())
}

/// Reason and message of a condition, and whether they are of the present spec.
pub(crate) async fn said(bare: &Bare, condition: &str) -> (String, String, bool) {
    let tenant = bare.tenants("a").get("one").await.unwrap();
    let conditions = tenant.status.unwrap().conditions;
    let found = conditions.iter().find(|found| found.type_ == condition);
    found.map_or_else(Default::default, |found| {
        let current = found.observed_generation == tenant.metadata.generation;
        (found.reason.clone(), found.message.clone(), current)
    })
}

/// A change that has begun, from `first` to `both` in a Secret with this `record`, and from the copy `old_copy`, outlives the
/// Secret, the copy and the operator.
pub(crate) async fn outlives(
    bare: &Bare,
    operator: Operator,
    (secret, record): (&str, &str),
    (first, both): (&Entries, &Entries),
    old_copy: &[u8],
) -> Operator {
    let secrets = bare.secrets("a");
    let old = secrets.get(secret).await.unwrap().metadata.uid;
    let params = DeleteParams::default();
    secrets.delete(secret, &params).await.unwrap();
    until("the Secret is back", async || {
        let found = secrets.get_opt(secret).await.unwrap();
        found.is_some_and(|found| found.metadata.uid != old && found.data.as_ref() == Some(both))
    })
    .await;

    // It died between the Secret and its copy.
    operator.kill();
    keep_copy(bare, old_copy).await;
    let operator = bare.operator();
    until("the copy follows", async || copy(bare).await != old_copy).await;
    assert_eq!(entries(bare, secret).await, *both);

    // Somebody brought back what the Secret was.
    operator.kill();
    let mut was = json!({ "data": first });
    was["data"][record] = Value::Null;
    let (params, was) = (PatchParams::default(), Patch::Merge(was));
    secrets.patch(secret, &params, &was).await.unwrap();
    assert_eq!(entries(bare, secret).await, *first);
    let operator = bare.operator();
    until("the copy brings it up to date", async || {
        entries(bare, secret).await == *both
    })
    .await;
    operator
}

/// What is kept of the only tenant.
pub(crate) async fn copy(bare: &Bare) -> Vec<u8> {
    let arguments = ["get", "stoker.dev/escrow/", "--prefix", "-w", "json"];
    let answer: Value = serde_json::from_str(&bare.etcdctl(&arguments).await.concat()).unwrap();
    let value = answer["kvs"][0]["value"].as_str().unwrap();
    base64::engine::general_purpose::STANDARD
        .decode(value)
        .unwrap()
}

/// Puts back what was kept.
pub(crate) async fn keep_copy(bare: &Bare, copy: &[u8]) {
    let keys = bare.pool_keys().await;
    let key = keys
        .iter()
        .find(|key| key.starts_with("stoker.dev/escrow/"));
    let mut command = bare.pool.etcdctl();
    command.args(["put", key.unwrap()]).stdin(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(copy).await.unwrap();
    drop(input);
    assert!(process.wait().await.unwrap().success());
}
