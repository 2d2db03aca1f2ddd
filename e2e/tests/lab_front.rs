//! The front door with real nodes and real clients: everybody reaches tenants through two gateways behind one address, by
//! name. On a lab of its own, `front`.
//!
//! `cargo test -p e2e --test lab_front [-- PART_OF_A_NAME …]`, with the environment of `lab_scenarios`, and
//! `STOKER_GATEWAY=PATH` for another gateway than this tree's.

#![allow(
    clippy::print_stdout,
    reason = "a test prints what it does and its figures"
)]

#[path = "support/conditions.rs"]
mod conditions;
#[path = "lab_support/front.rs"]
mod front;
#[path = "lab_support/front_address.rs"]
mod front_address;
#[path = "lab_support/front_authority.rs"]
mod front_authority;
#[path = "lab_support/front_demo.rs"]
mod front_demo;
#[path = "lab_support/front_kept.rs"]
mod front_kept;
#[path = "lab_support/front_kills.rs"]
mod front_kills;
#[path = "lab_support/front_listener.rs"]
mod front_listener;
#[path = "lab_support/front_load.rs"]
mod front_load;
#[path = "lab_support/front_nat.rs"]
mod front_nat;
#[path = "lab_support/front_sleep.rs"]
mod front_sleep;
#[path = "lab_support/node_dials.rs"]
mod node_dials;
#[path = "lab_support/node_lease.rs"]
mod node_lease;
#[path = "lab_support/pods.rs"]
mod pods;
#[path = "lab_support/scenarios.rs"]
mod scenarios;
#[path = "support/tenants.rs"]
mod tenants;
#[path = "lab_support/tokens.rs"]
mod tokens;
#[path = "lab_support/units.rs"]
mod units;
#[path = "lab_support/world.rs"]
#[expect(dead_code, reason = "nobody looks into the pool here")]
mod world;

use std::process::ExitCode;

use scenarios::{Scenario, scenarios};
use stoker_lab::lab::LabOptions;

/// In this order; each also works alone on a lab that is up. The last one has the node leave.
const SCENARIOS: [Scenario; 9] = scenarios![
    front_demo::the_main_job_is_done_through_the_gateway,
    front::people_nodes_and_pods_reach_their_api_server_through_the_gateway,
    front_listener::the_hosts_agent_is_the_listener_and_is_replaced_without_a_gap,
    front_sleep::a_tenant_sleeps_whatever_its_node_dials_and_wakes_by_the_first_request,
    front_kills::gateways_are_killed_and_replaced_under_load,
    front_address::another_address_of_the_gateway_is_found_by_its_name,
    front_authority::another_authority_takes_over_and_nodes_pods_and_people_go_on,
    front_nat::a_machine_behind_nat_joins_and_is_reached,
    front_listener::a_machine_that_leaves_keeps_nothing_of_the_listener,
];

fn main() -> ExitCode {
    scenarios::run_chosen(&SCENARIOS, LabOptions::named("front"))
}
