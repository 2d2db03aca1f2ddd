//! Where tenants are reached, and over which IP family, with real nodes. On a lab of its own, `networks`: it has IPv6 beside
//! IPv4, addresses change, and the operator is given a base domain.
//!
//! `cargo test -p e2e --test lab_networks [-- PART_OF_A_NAME …]`, with the environment of `lab_scenarios`.

#![allow(
    clippy::print_stdout,
    reason = "a test prints what it does and its figures"
)]

#[path = "lab_support/addressed.rs"]
mod addressed;
#[path = "support/conditions.rs"]
mod conditions;
#[path = "lab_support/families.rs"]
mod families;
#[path = "lab_support/node_dials.rs"]
mod node_dials;
#[path = "lab_support/node_lease.rs"]
mod node_lease;
#[path = "lab_support/pods.rs"]
#[expect(dead_code, reason = "nobody looks into processes here")]
mod pods;
#[path = "lab_support/scenarios.rs"]
mod scenarios;
#[path = "lab_support/stable_name.rs"]
mod stable_name;
#[path = "support/tenants.rs"]
mod tenants;
#[path = "lab_support/world.rs"]
#[expect(dead_code, reason = "nobody looks into the pool here")]
mod world;

use std::process::ExitCode;

use scenarios::{Scenario, scenarios};
use stoker_lab::lab::LabOptions;

/// In this order: for the last, the operator is given a base domain.
const SCENARIOS: [Scenario; 5] = scenarios![
    families::a_tenant_of_ipv6_alone_runs_pods,
    families::a_tenant_of_both_families_and_ipv4_first_runs_pods,
    families::a_tenant_of_both_families_and_ipv6_first_runs_pods,
    stable_name::a_changed_address_arrives_everywhere_and_restarts_nothing,
    stable_name::a_node_that_joined_by_the_stable_name_notices_no_change_of_address,
];

fn main() -> ExitCode {
    let options = LabOptions {
        dual_stack: true,
        ..LabOptions::named("networks")
    };
    scenarios::run_chosen(&SCENARIOS, options)
}
