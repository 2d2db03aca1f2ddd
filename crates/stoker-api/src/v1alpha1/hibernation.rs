//! When a tenant's control plane sleeps.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When the control plane sleeps: no pod of it runs, and everything is kept. What runs on the tenant's nodes runs on.
///
/// Each of these asks for sleep or waking at a time of its own; the latest time that has come counts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Hibernation {
    /// Times of day and week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<HibernationSchedule>,
    /// How long nobody asks anything of the API server before it sleeps, such as `30m` or `8h`; a minute at least. Nodes, pods and the
    /// control plane itself do not count. The control-plane pods are replaced once when this is set or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(
        "self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && self != '' && duration(self) >= duration('1m')"
    ).message("idleAfter must be a duration of at least 1m, such as 30m, 8h or 1h30m"))]
    pub idle_after: Option<String>,
    /// By hand: sleeps from this time on, until something later wakes it. A time that lies before the last waking does
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_at: Option<Time>,
    /// By hand: is awake from this time on, until something later lets it sleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Time>,
    /// Whether it wakes when somebody connects to it through the gateway by the name that wakes, which kubeconfigs for people
    /// have and nodes do not. Default: true.
    #[serde(default = "yes")]
    pub wake_on_connection: bool,
}

/// Times of day and week at which the control plane goes to sleep and wakes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.sleep) || has(self.wake)").message(
    "schedule needs sleep, wake or both"
))]
pub struct HibernationSchedule {
    /// When it goes to sleep, as a line of cron: minute, hour, day of month, month, day of week, such as `0 20 * * 1-5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub sleep: Option<String>,
    /// When it wakes, as a line of cron, such as `0 7 * * 1-5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub wake: Option<String>,
    /// Time zone of both, by its IANA name such as `Europe/Berlin`. A time that the clock passes over in spring comes as
    /// much later, one that it shows twice in autumn comes once. Default: UTC.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Whether the control plane sleeps, since when and why.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HibernationStatus {
    /// Whether it sleeps.
    pub state: HibernationState,
    /// Since when that is wanted.
    pub since: Time,
    /// Why.
    pub reason: HibernationReason,
    /// When that changes by the clock, if nothing happens before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Whether it sleeps and a connection wakes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wakes_on_connection: bool,
}

/// Whether the control plane sleeps.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HibernationState {
    /// As many pods are wanted as `replicas` says.
    Awake,
    /// No pod is wanted.
    Asleep,
}

/// What asked for sleep or waking.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HibernationReason {
    /// Nothing has yet: it is awake since it was made, or since it has replicas again.
    Made,
    /// `schedule`.
    Schedule,
    /// `sleepAt` or `wakeAt`.
    ByHand,
    /// `idleAfter`.
    Idle,
    /// A connection, as `wakeOnConnection` allows.
    Connection,
    /// `replicas: 0`.
    NoReplicas,
}
