//! `spec.hibernation`, parsed.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::cron::{Cron, InvalidCron, time_zone};
use crate::v1alpha1;

/// When the control plane sleeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Hibernation {
    /// Time zone of the two lines.
    pub zone: TimeZone,
    /// Times at which it goes to sleep.
    pub sleep: Option<Cron>,
    /// Times at which it wakes.
    pub wake: Option<Cron>,
    /// How long nobody asks anything before it sleeps.
    pub idle_after: Option<SignedDuration>,
    /// By hand: asleep from then on.
    pub sleep_at: Option<Timestamp>,
    /// By hand: awake from then on.
    pub wake_at: Option<Timestamp>,
    /// Whether a connection wakes it.
    pub wake_on_connection: bool,
}

/// What is wrong with it, behind `spec.hibernation.`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum InvalidHibernation {
    #[error("schedule.{field}: {why}")]
    Cron {
        field: &'static str,
        why: InvalidCron,
    },
    #[error("idleAfter: {0:?} is no duration of at least 1m, such as 30m or 8h")]
    IdleAfter(String),
    #[error(
        "schedule.timeZone: {0:?} is no time zone of the IANA database, such as Europe/Berlin or UTC"
    )]
    Zone(String),
}

impl Hibernation {
    /// Parses it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn validate(asked: &v1alpha1::Hibernation) -> Result<Self, InvalidHibernation> {
        let schedule = asked.schedule.as_ref();
        let cron = |field, line: Option<&String>| {
            let parsed = line.map(|line| line.parse()).transpose();
            parsed.map_err(|why| InvalidHibernation::Cron { field, why })
        };
        let zone = match schedule {
            Some(schedule) => time_zone(&schedule.time_zone)
                .ok_or_else(|| InvalidHibernation::Zone(schedule.time_zone.clone()))?,
            None => TimeZone::UTC,
        };
        Ok(Self {
            zone,
            sleep: cron(
                "sleep",
                schedule.and_then(|schedule| schedule.sleep.as_ref()),
            )?,
            wake: cron("wake", schedule.and_then(|schedule| schedule.wake.as_ref()))?,
            idle_after: asked.idle_after.as_deref().map(idle_after).transpose()?,
            sleep_at: asked.sleep_at.as_ref().map(|time| time.0),
            wake_at: asked.wake_at.as_ref().map(|time| time.0),
            wake_on_connection: asked.wake_on_connection,
        })
    }
}

fn idle_after(text: &str) -> Result<SignedDuration, InvalidHibernation> {
    let parsed: Option<kube::core::Duration> = text.parse().ok();
    parsed
        .filter(|parsed| !parsed.is_negative())
        .and_then(|parsed| SignedDuration::try_from(std::time::Duration::from(parsed)).ok())
        .filter(|parsed| parsed.as_secs() >= 60)
        .ok_or_else(|| InvalidHibernation::IdleAfter(text.to_owned()))
}
