//! Stoker's flags and people's arguments, together.

use stoker_api::arguments::{Argument, Component};
use stoker_api::v1alpha1::ControlPlaneDeployment;

/// A flag's name without dashes, and its value.
pub(super) type Flag = (&'static str, String);

/// A flag whose values are joined: every entry is a setting of its own.
pub(super) const GATES: &str = "feature-gates";
/// A flag that adds to what it said before; of two settings of one name the last counts.
pub(super) const VERSIONS: &str = "runtime-config";

/// `ours`, sorted, and behind them what was asked for, in the order given. Of a flag that people may
/// set, ours is only a default. The allow-list has kept away everything else.
pub(super) fn with_asked(
    component: Component,
    wanted: &ControlPlaneDeployment,
    ours: Vec<Flag>,
) -> Vec<String> {
    let asked: Vec<Argument> = wanted
        .extra_args
        .of(component)
        .iter()
        .filter_map(|text| Argument::parse(component, text).ok())
        .collect();
    let (gates, asked): (Vec<_>, Vec<_>) = asked
        .into_iter()
        .partition(|argument| argument.name == format!("--{GATES}"));
    let replaced = |flag: &Flag| {
        let mut asked = asked.iter();
        flag.0 != VERSIONS && asked.any(|argument| argument.name == format!("--{}", flag.0))
    };
    let mut ours: Vec<Flag> = ours.into_iter().filter(|flag| !replaced(flag)).collect();
    for gate in gates {
        match ours.iter_mut().find(|(name, _)| *name == GATES) {
            Some((_, value)) => *value = format!("{value},{}", gate.value),
            None => ours.push((GATES, gate.value)),
        }
    }
    // The order of one flag's values counts.
    ours.sort_by_key(|(name, _)| format!("{name}="));
    let mut rendered: Vec<_> = ours
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    rendered.extend(asked.iter().map(ToString::to_string));
    rendered
}
