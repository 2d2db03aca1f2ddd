//! Arguments that people may add to a component: an allow-list, in Rust and as CEL.
//!
//! A name is compared after folding `_` to `-`, as the components themselves do
//! (`k8s.io/component-base/cli/flag`, `WordSepNormalizeFunc`). Every name listed exists in every
//! supported minor. What is not listed is refused: it would break isolation or our own wiring, has a
//! field of its own, or is unknown to us.

mod api_server;
mod background;

use std::fmt;

/// A stock component of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

/// Names of arguments and why they are refused.
type Refused = (&'static [&'static str], &'static str);

/// Log, metric and debugging arguments that all components have.
const COMMON: &[&str] = &[
    "--allow-metric-labels",
    "--allow-metric-labels-manifest",
    "--contention-profiling",
    "--disable-http2-serving",
    "--disabled-metrics",
    "--feature-gates",
    "--http2-max-streams-per-connection",
    "--log-flush-frequency",
    "--log-json-info-buffer-size",
    "--log-json-split-stream",
    "--log-text-info-buffer-size",
    "--log-text-split-stream",
    "--logging-format",
    "--profiling",
    "--show-hidden-metrics-for-version",
    "--tls-cipher-suites",
    "--tls-min-version",
    "--v",
    "--vmodule",
    "-v",
];

const COMMON_REFUSED: &[Refused] = &[(
    &[
        "--emulated-version",
        "--emulation-forward-compatible",
        "--min-compatibility-version",
        "--runtime-config-emulation-forward-compatible",
    ],
    "the release follows spec.kubernetes.version alone",
)];

/// What is said of an argument that no list names.
const UNKNOWN: &str =
    "not among the arguments that Stoker knows to be safe, see docs/from-kamaji.md";

/// Feature gates that stay as Stoker sets them. `AllAlpha` and `AllBeta` would include them.
///
/// Under the last, API servers write the addresses of management pods into the tenant's state.
pub const FIXED_GATES: [&str; 3] = ["AllAlpha", "AllBeta", "UnknownVersionInteroperabilityProxy"];

impl Component {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// The binary, which is also the container's name.
    #[must_use]
    pub fn binary(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// Its name in the spec.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::ApiServer => "apiServer",
            Self::ControllerManager => "controllerManager",
            Self::Scheduler => "scheduler",
        }
    }

    /// Names of the arguments that people may add, dashes included.
    pub fn allowed(self) -> impl Iterator<Item = &'static str> {
        let own = match self {
            Self::ApiServer => api_server::ALLOWED,
            Self::ControllerManager => background::CONTROLLER_MANAGER,
            Self::Scheduler => background::SCHEDULER,
        };
        own.iter().chain(COMMON).copied()
    }

    /// Names of the arguments that are refused for a reason of their own.
    fn refused(self) -> impl Iterator<Item = &'static Refused> {
        let own = match self {
            Self::ApiServer => api_server::REFUSED,
            Self::ControllerManager => background::CONTROLLER_MANAGER_REFUSED,
            Self::Scheduler => background::SCHEDULER_REFUSED,
        };
        own.iter().chain(COMMON_REFUSED)
    }
}

/// One argument that may be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name with dashes, folded.
    pub name: String,
    /// What follows the `=`.
    pub value: String,
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Why an argument is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RefusedArgument {
    /// Not `--name=value`.
    #[error("{0:?}: {FORM_MESSAGE}")]
    Form(String),
    /// Not on the allow-list.
    #[error("{name}: {reason}")]
    NotAllowed {
        /// Its name with dashes, folded.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A value that would undo what protects the tenant or its neighbours.
    #[error("{FIXED_MESSAGE}")]
    Fixed,
}

impl Argument {
    /// Reads an argument for `component`.
    ///
    /// # Errors
    /// It may not be added.
    pub fn parse(component: Component, text: &str) -> Result<Self, RefusedArgument> {
        let form = || RefusedArgument::Form(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(form)?;
        let word = name.strip_prefix("--").unwrap_or_default();
        let is_word = word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        if !is_word && name != "-v" {
            return Err(form());
        }
        let name = name.replace('_', "-");
        if !component.allowed().any(|allowed| allowed == name) {
            let reason = component
                .refused()
                .find(|(names, _)| names.contains(&name.as_str()))
                .map_or(UNKNOWN, |(_, reason)| *reason);
            return Err(RefusedArgument::NotAllowed { name, reason });
        }
        let fixed = match name.as_str() {
            "--feature-gates" => FIXED_GATES.iter().any(|gate| value.contains(gate)),
            "--disable-admission-plugins" => {
                FIXED_PLUGINS.iter().any(|plugin| value.contains(plugin))
            }
            _ => false,
        };
        if fixed {
            return Err(RefusedArgument::Fixed);
        }
        Ok(Self {
            name,
            value: value.to_owned(),
        })
    }
}

/// The admission plugins that keep a node from acting for others, and anybody from having a certificate of
/// `system:masters` signed.
const FIXED_PLUGINS: [&str; 2] = ["NodeRestriction", "CertificateSubjectRestriction"];

const FORM: &str = "^(--[a-z][-_a-z0-9]*|-v)=";
const FORM_MESSAGE: &str =
    "write each argument as --name=value, a boolean as --name=true, with nothing in front";
const FIXED_MESSAGE: &str = "extraArgs: --feature-gates may not name AllAlpha, AllBeta or \
    UnknownVersionInteroperabilityProxy, and --disable-admission-plugins not NodeRestriction or \
    CertificateSubjectRestriction: they protect management and other nodes";

/// CEL: every entry of `self` has the form of an argument.
pub(crate) fn form() -> (String, String) {
    (
        format!("self.all(a, a.matches('{FORM}'))"),
        format!("extraArgs: {FORM_MESSAGE}"),
    )
}

/// CEL: every entry of `self` is on `component`'s allow-list; and the CEL of the message that
/// names the first which is not, with the reason.
pub(crate) fn on_allow_list(component: Component) -> (String, String) {
    const NAME: &str = "a.split('=')[0].replace('_', '-')";
    let listed = |names: &mut dyn Iterator<Item = &str>| {
        let quoted: Vec<String> = names.map(|name| format!("'{name}'")).collect();
        format!("[{}]", quoted.join(", "))
    };
    let allowed = listed(&mut component.allowed());
    let reasons: Vec<String> = component
        .refused()
        .map(|(names, reason)| {
            let names = listed(&mut names.iter().copied());
            format!("n in {names} ? '{reason}' : ")
        })
        .collect();
    let reasons = reasons.concat();
    let field = component.field();
    (
        format!("self.all(a, !a.matches('{FORM}') || {NAME} in {allowed})"),
        format!(
            "self.map(a, {NAME}).filter(n, !(n in {allowed}))\
             .map(n, 'extraArgs.{field}: ' + n + ': ' + ({reasons}'{UNKNOWN}'))[0]"
        ),
    )
}

/// CEL: no entry of `self` turns off what must stay on.
pub(crate) fn keeps_fixed() -> (String, String) {
    let gates = FIXED_GATES.join("|");
    let plugins = FIXED_PLUGINS.join("|");
    (
        format!(
            "self.all(a, !a.matches('^--(feature[-_]gates=.*({gates})|\
             disable[-_]admission[-_]plugins=.*({plugins}))'))"
        ),
        FIXED_MESSAGE.to_owned(),
    )
}

#[cfg(test)]
mod tests;
