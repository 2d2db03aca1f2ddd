//! Stoker on a lab, from the user's side: everything in the list that needs real pods.
//!
//! `cargo test -p e2e --test lab_scenarios [-- PART_OF_A_NAME …]` brings up the lab `e2e`, runs the scenarios in order, prints
//! how long each took, and takes the lab down, also after failures.
//! - `STOKER_KEEP_LAB=1` leaves it up, and a later run goes on with it.
//! - `STOKER_LAB_AS_IT_IS=1` takes a lab that is up and the operator on it as they are.
//! - `STOKER_LAB_NAME=NAME` takes another lab than `e2e`.
//! - `STOKER_OPERATOR=PATH` installs that operator instead of building this tree's, `STOKER_WARDEN=PATH` that warden,
//!   `STOKER_NODE=PATH` that stoker-node.
//!
//! Logs of a failed scenario are collected in `target/lab-logs/<scenario>`.

#![allow(
    clippy::print_stdout,
    reason = "a test prints what it does and its figures"
)]

#[path = "support/conditions.rs"]
mod conditions;
#[path = "lab_support/deletion.rs"]
mod deletion;
#[path = "lab_support/devices.rs"]
mod devices;
#[path = "lab_support/encryption.rs"]
mod encryption;
#[path = "lab_support/exposure.rs"]
mod exposure;
#[path = "lab_support/joining.rs"]
mod joining;
#[path = "lab_support/kills.rs"]
mod kills;
#[path = "lab_support/kubelets.rs"]
mod kubelets;
#[path = "lab_support/main_job.rs"]
mod main_job;
#[path = "lab_support/network.rs"]
mod network;
#[path = "lab_support/node_lease.rs"]
mod node_lease;
#[path = "lab_support/people.rs"]
mod people;
#[path = "lab_support/pods.rs"]
mod pods;
#[path = "lab_support/pool_restart.rs"]
mod pool_restart;
#[path = "lab_support/rebuild.rs"]
mod rebuild;
#[path = "lab_support/scenarios.rs"]
mod scenarios;
#[path = "lab_support/secrets.rs"]
mod secrets;
#[path = "lab_support/sleep.rs"]
mod sleep;
#[path = "lab_support/systemd.rs"]
mod systemd;
#[path = "lab_support/tampering.rs"]
mod tampering;
#[path = "support/tenants.rs"]
mod tenants;
#[path = "lab_support/tokens.rs"]
mod tokens;
#[path = "lab_support/two_tenants.rs"]
mod two_tenants;
#[path = "lab_support/units.rs"]
mod units;
#[path = "lab_support/versions.rs"]
mod versions;
#[path = "lab_support/world.rs"]
mod world;
#[path = "lab_support/write_freeze.rs"]
mod write_freeze;

use std::process::ExitCode;

use scenarios::{Scenario, scenarios};
use stoker_lab::lab::LabOptions;

/// In this order; each also works alone on a lab that is up.
const SCENARIOS: [Scenario; 21] = scenarios![
    main_job::a_tenant_a_joined_worker_and_running_pods,
    kubelets::logs_and_exec_go_only_to_a_kubelet_with_a_certificate_of_the_tenant,
    joining::a_machine_joins_by_its_token_leaves_and_joins_again,
    systemd::a_machine_with_systemd_runs_both_as_units_until_it_leaves,
    devices::a_pod_gets_a_device_and_restarts_of_plugin_and_kubelet_lose_none,
    two_tenants::credentials_of_one_tenant_are_worth_nothing_at_another,
    network::control_plane_pods_reach_the_pool_and_nothing_else_of_management,
    versions::a_tenant_of_the_oldest_minor_runs_pods_on_a_node_of_its_own_minor,
    tampering::what_a_tenant_admin_deletes_or_changes_comes_back,
    secrets::derived_secrets_heal_and_the_running_api_server_takes_the_new_certificate,
    exposure::cluster_ip_and_node_port_tenants_become_ready,
    exposure::a_node_port_out_of_range_is_reported_and_can_be_mended,
    people::a_generated_kubeconfig_is_of_exactly_its_user_and_groups,
    deletion::deletion_leaves_nothing_or_exactly_the_data,
    deletion::deleting_the_namespace_ends_and_leaves_nothing,
    kills::a_killed_operator_is_replaced_and_every_birth_and_deletion_ends_right,
    write_freeze::a_live_tenant_is_frozen_and_thawed_without_a_restart,
    encryption::what_a_live_tenant_has_stored_is_encrypted_otherwise_without_a_restart,
    pool_restart::acknowledged_writes_survive_a_killed_pool,
    sleep::a_tenant_sleeps_and_wakes_with_its_data_and_its_pods,
    rebuild::a_lost_management_cluster_comes_back_from_the_pool_and_the_escrow_key,
];

fn main() -> ExitCode {
    scenarios::run_chosen(&SCENARIOS, LabOptions::named("e2e"))
}
