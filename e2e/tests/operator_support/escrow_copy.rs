//! The sealed copy of the tenant's keys in the pool, as bytes.

use std::process::Stdio;

use base64::Engine as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::bare::Bare;

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
