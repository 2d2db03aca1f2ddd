//! The CRDs, the installation manifest, the chart and the examples on real kube-apiservers: the newest supported one and the
//! oldest.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what these functions do is test"
)]

#[path = "crd_support/built.rs"]
mod built;
#[path = "../../crates/stoker-api/tests/admission/cases.rs"]
mod cases;
#[path = "crd_support/chart.rs"]
mod chart;
#[path = "crd_support/columns.rs"]
mod columns;
#[path = "crd_support/definitions.rs"]
mod definitions;
#[path = "crd_support/install.rs"]
mod install;

use std::path::{Path, PathBuf};

use http::{Method, Request};
use kube::Client;
use kube::core::Status;
use serde_json::Value;
use stoker_lab::versions::{default_kubernetes, oldest_kubernetes};

/// Makes each function a test on the newest release and one on the oldest.
macro_rules! on_newest_and_oldest {
    ($($module:ident::$function:ident),+ $(,)?) => {
        mod newest {
            $(#[tokio::test]
            async fn $function() {
                super::$module::$function(super::default_kubernetes()).await;
            })+
        }
        mod oldest {
            $(#[tokio::test]
            async fn $function() {
                super::$module::$function(super::oldest_kubernetes()).await;
            })+
        }
    };
}

on_newest_and_oldest!(
    built::every_option_is_taken_and_keeps_to_the_restricted_profile,
    definitions::the_api_server_accepts_and_refuses_as_the_tables_say,
    definitions::the_documented_defaults_are_filled_in,
    definitions::the_examples_are_accepted_and_come_back_as_written,
    chart::helm_installs_upgrades_and_uninstalls_the_chart,
    chart::helm_takes_over_what_install_yaml_made,
    columns::wide_columns_answer_the_first_three_questions,
    install::kubectl_installs_and_installs_again_without_a_change,
    install::the_installed_operator_keeps_to_the_restricted_profile,
    install::the_installed_operator_may_do_its_work_and_nothing_else,
);

/// One request; unknown fields are refused, as `kubectl` has it.
async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, Box<Status>> {
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?fieldValidation=Strict&fieldManager=e2e"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    match client.request(request).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn create(client: &Client, path: &str, object: &Value) -> Result<Value, Box<Status>> {
    send(client, Method::POST, path, object).await
}

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The YAML documents of a file of the repository.
fn documents(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file(path)).unwrap();
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}
