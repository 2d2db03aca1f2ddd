//! The tunnel with real nodes: a tenant whose node dials out and is dialled by nobody. On a lab of its own, `tunnel`.
//!
//! `cargo test -p e2e --test lab_tunnel [-- PART_OF_A_NAME …]`, with the environment of `lab_scenarios`.
//!
//! In the tenant's pod the same program answers, called as `lab_tunnel far TASK`.

#![allow(
    clippy::print_stdout,
    reason = "a test prints what it does and its figures"
)]

#[path = "lab_support/behind_the_wall.rs"]
mod behind_the_wall;
#[path = "lab_support/canaries.rs"]
mod canaries;
#[path = "lab_support/canary_counts.rs"]
mod canary_counts;
#[path = "lab_support/canary_ways.rs"]
mod canary_ways;
#[path = "support/conditions.rs"]
mod conditions;
#[path = "lab_support/door.rs"]
mod door;
#[path = "lab_support/far_server.rs"]
mod far_server;
#[path = "lab_support/foreign_agents.rs"]
mod foreign_agents;
#[path = "lab_support/host_agent.rs"]
mod host_agent;
#[path = "lab_support/pods.rs"]
#[expect(dead_code, reason = "nobody counts restarts here")]
mod pods;
#[path = "lab_support/scenarios.rs"]
mod scenarios;
#[path = "support/tenants.rs"]
mod tenants;
#[path = "lab_support/tokens.rs"]
mod tokens;
#[path = "lab_support/tunnel_figures.rs"]
mod tunnel_figures;
#[path = "lab_support/tunnel_kills.rs"]
mod tunnel_kills;
#[path = "lab_support/units.rs"]
mod units;
#[path = "lab_support/walled.rs"]
mod walled;
#[path = "lab_support/world.rs"]
#[expect(dead_code, reason = "nobody looks into the pool here")]
mod world;

use std::process::ExitCode;

use scenarios::{Scenario, scenarios};
use stoker_lab::lab::LabOptions;

/// In this order: the last one switches the tunnel off.
const SCENARIOS: [Scenario; 7] = scenarios![
    behind_the_wall::every_call_of_an_api_server_arrives_behind_the_wall,
    canaries::whatever_a_tenant_has_its_api_server_dial_nothing_of_managements_hears_of_it,
    foreign_agents::only_a_node_of_the_tenant_is_an_agent,
    tunnel_kills::killed_wardens_and_agents_cost_their_own_streams_and_no_later_call,
    tunnel_kills::an_upgrade_of_agents_cuts_no_stream_and_costs_no_call,
    host_agent::a_machine_that_joins_is_reached_by_its_own_agent,
    tunnel_figures::what_the_tunnel_costs,
];

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let Some(("far", task)) = words
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return far_server::run(task);
    }
    scenarios::run_chosen(&SCENARIOS, LabOptions::named("tunnel"))
}
