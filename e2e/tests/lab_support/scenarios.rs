//! Scenarios that share a lab, run in order; their lab is taken down after them, also after failures.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use futures::future::LocalBoxFuture;
use stoker_lab::lab::LabOptions;

use crate::world::{self, World};

/// Something that is seen of Stoker on a lab.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>,
}

/// `[module::function, …]`, each a scenario of the function's name.
macro_rules! scenarios {
    ($($module:ident::$function:ident),+ $(,)?) => {
        [$($crate::scenarios::Scenario {
            name: stringify!($function),
            run: |world| Box::pin($module::$function(world)),
        }),+]
    };
}
pub(crate) use scenarios;

/// Runs those whose names the command line has a part of, else all, on the lab of these options.
pub(crate) fn run_chosen(scenarios: &[Scenario], options: LabOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(scenarios, options)),
        Err(error) => {
            println!("no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Names given on the command line; options of the usual harness mean nothing here.
fn wanted() -> impl Fn(&str) -> bool {
    let parts: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    move |name| parts.is_empty() || parts.iter().any(|part| name.contains(part))
}

async fn run(scenarios: &[Scenario], options: LabOptions) -> ExitCode {
    let chosen = wanted();
    let scenarios: Vec<_> = scenarios
        .iter()
        .filter(|scenario| chosen(scenario.name))
        .collect();
    if std::env::args().any(|word| word == "--list") {
        for scenario in scenarios {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    if scenarios.is_empty() {
        println!("no scenario has such a name");
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let world = match World::up(options).await {
        Ok(world) => world,
        Err(error) => {
            println!("the lab does not come up: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("lab up in {:.1} s", begun.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for scenario in scenarios {
        if let Err(error) = attempt(scenario, &world).await {
            println!("FAILED {}: {error:#}\n", scenario.name);
            failed.push(scenario.name);
        }
    }
    if let Err(error) = world.down().await {
        println!("the lab does not go down: {error:#}");
        failed.push("taking the lab down");
    }
    println!(
        "lab scenarios: {:.1} minutes; failed: {failed:?}",
        begun.elapsed().as_secs_f64() / 60.0
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one scenario; its error says where the logs are.
async fn attempt(scenario: &Scenario, world: &World) -> Result<()> {
    println!("---- {}", scenario.name);
    let begun = Instant::now();
    let outcome = (scenario.run)(world).await;
    println!(
        "---- {}: {:.1} s",
        scenario.name,
        begun.elapsed().as_secs_f64()
    );
    let Err(error) = outcome else { return Ok(()) };
    let logs = world::logs(scenario.name);
    let collected = match world.lab.collect_logs(&logs).await {
        Ok(()) => format!("logs are in {}", logs.display()),
        Err(error) => format!("logs could not be collected: {error:#}"),
    };
    Err(error.context(collected))
}
