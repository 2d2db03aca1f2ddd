//! Leader election on a `coordination.k8s.io/v1` Lease, as client-go does it: nobody's clock is
//! trusted. A candidate takes the lease when it has watched it unchanged for its whole duration;
//! the holder gives up after a shorter time without a successful renewal, counted from before the
//! request was sent. Losing the lease must end the process.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Error;

/// client-go's `LeaseDuration`: how long an unrenewed lease keeps others away.
const LEASE: Duration = Duration::from_secs(15);
/// client-go's `RenewDeadline`: the holder gives up this long after its last success.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// client-go's `RetryPeriod`, after a failure and between looks at another's lease.
const RETRY: Duration = Duration::from_secs(2);
/// Pause between successful renewals. client-go writes every 2 s; half the deadline leaves room
/// for two further attempts and costs 12 writes a minute.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// A candidate without rights gives up after this long: rights may be installed a moment later
/// than the process that needs them.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a candidate does about a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Write our name into it.
    Acquire,
    /// It carries our name already: renew it.
    Renew,
    /// It is another's, for at least so long.
    Wait(Duration),
}

/// The decision of a candidate that has seen the lease unchanged for `unchanged`.
fn decide(lease: Option<&LeaseSpec>, me: &str, unchanged: Duration) -> Step {
    let Some(lease) = lease else {
        return Step::Acquire;
    };
    match lease.holder_identity.as_deref() {
        None | Some("") => Step::Acquire,
        Some(holder) if holder == me => Step::Renew,
        Some(_) => {
            let seconds = lease.lease_duration_seconds.unwrap_or_default();
            let duration = match u64::try_from(seconds) {
                Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
                _ => LEASE,
            };
            match duration.checked_sub(unchanged) {
                Some(left) if !left.is_zero() => Step::Wait(left),
                _ => Step::Acquire,
            }
        }
    }
}

/// What a lease says once `me` has it.
fn held_by(me: &str, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    let mut spec = before.cloned().unwrap_or_default();
    let mine = spec.holder_identity.as_deref() == Some(me);
    if !mine {
        if before.is_some() {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        }
        spec.holder_identity = Some(me.to_owned());
        spec.acquire_time = Some(MicroTime(now));
    }
    spec.lease_duration_seconds = i32::try_from(LEASE.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    spec
}

/// A candidate for a lease.
pub struct Election {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    me: String,
}

impl Election {
    /// A candidate named `identity` (its pod's name) for the lease `namespace/name`. Two processes
    /// must not have the same identity at once.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            me: identity.to_owned(),
        }
    }

    /// Waits until the lease is ours, however long that takes.
    ///
    /// # Errors
    /// [`Error::ReadLease`] or [`Error::WriteLease`] when the API server has refused for a minute
    /// for a reason that does not pass by itself, such as missing rights.
    pub async fn acquire(self) -> Result<Leadership, Error> {
        let mut watched: Option<(Option<LeaseSpec>, Instant)> = None;
        let mut refused: Option<Instant> = None;
        loop {
            let pause = match self.attempt(&mut watched).await {
                Ok(Attempt::Held(lease, since)) => return Ok(self.leadership(*lease, since)),
                Ok(Attempt::Wait(left)) => {
                    refused = None;
                    left.min(RETRY)
                }
                Err(error) => {
                    tracing::warn!(
                        lease = %self.name,
                        category = error.category(),
                        "lease not acquired, trying again"
                    );
                    let since = *refused.get_or_insert_with(Instant::now);
                    if error.is_transient() {
                        refused = None;
                    } else if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    async fn attempt(
        &self,
        watched: &mut Option<(Option<LeaseSpec>, Instant)>,
    ) -> Result<Attempt, Error> {
        let found = self.read().await?;
        let now = Instant::now();
        let spec = found.as_ref().and_then(|lease| lease.spec.clone());
        let since = match watched {
            Some((seen, since)) if *seen == spec => *since,
            _ => {
                *watched = Some((spec.clone(), now));
                now
            }
        };
        match decide(spec.as_ref(), &self.me, now - since) {
            Step::Wait(left) => Ok(Attempt::Wait(left)),
            Step::Acquire | Step::Renew => {
                let spec = held_by(&self.me, spec.as_ref(), microseconds());
                match self.write(found, spec).await {
                    Ok(lease) => Ok(Attempt::Held(Box::new(lease), now)),
                    Err(error) if is_race(&error) => Ok(Attempt::Wait(RETRY)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn leadership(self, lease: Lease, renewed: Instant) -> Leadership {
        Leadership {
            held: Mutex::new(Held { lease, renewed }),
            election: self,
        }
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        self.leases
            .get_opt(&self.name)
            .await
            .map_err(|source| Error::ReadLease {
                lease: format!("{}/{}", self.namespace, self.name),
                source: Box::new(source),
            })
    }

    /// Writes the lease if it is still as in `before`: `resourceVersion` is compared.
    async fn write(&self, before: Option<Lease>, spec: LeaseSpec) -> Result<Lease, Error> {
        let params = PostParams::default();
        let written = if let Some(mut lease) = before {
            lease.spec = Some(spec);
            self.leases.replace(&self.name, &params, &lease).await
        } else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            };
            let lease = Lease {
                metadata,
                spec: Some(spec),
            };
            self.leases.create(&params, &lease).await
        };
        written.map_err(|source| Error::WriteLease {
            lease: format!("{}/{}", self.namespace, self.name),
            source: Box::new(source),
        })
    }
}

enum Attempt {
    Held(Box<Lease>, Instant),
    Wait(Duration),
}

/// The lease is ours for as long as [`Leadership::hold`] has not ended.
pub struct Leadership {
    election: Election,
    held: Mutex<Held>,
}

struct Held {
    /// As last written.
    lease: Lease,
    /// Just before the last successful write was sent.
    renewed: Instant,
}

/// Why the lease is no longer ours.
#[derive(Debug)]
pub enum Lost {
    /// Another process wrote its name into it, or writes it under our name.
    Taken {
        /// The name in the lease now.
        holder: String,
    },
    /// It could not be renewed in time; another process may have it by now.
    NotRenewed {
        /// The last failure, when there was one.
        error: Option<Error>,
    },
}

impl Leadership {
    /// Renews the lease and ends when it is lost. Then the process must end at once.
    pub async fn hold(&self) -> Lost {
        let mut held = self.held.lock().await;
        loop {
            let deadline = held.renewed + RENEW_DEADLINE;
            tokio::time::sleep_until((held.renewed + RENEW_EVERY).min(deadline)).await;
            let mut failure = None;
            loop {
                match timeout_at(deadline, self.renew(&mut held)).await {
                    Ok(Ok(None)) => break,
                    Ok(Ok(Some(lost))) => return lost,
                    Ok(Err(error)) => {
                        tracing::warn!(
                            lease = %self.election.name,
                            category = error.category(),
                            "lease not renewed, trying again"
                        );
                        failure = Some(error);
                    }
                    Err(_) => return Lost::NotRenewed { error: failure },
                }
                if Instant::now() + RETRY >= deadline {
                    return Lost::NotRenewed { error: failure };
                }
                sleep(RETRY).await;
            }
        }
    }

    /// One renewal. A write of our own whose answer was lost looks like a conflict; what it wrote
    /// tells it apart from another process.
    async fn renew(&self, held: &mut Held) -> Result<Option<Lost>, Error> {
        let sent = Instant::now();
        let me = &self.election.me;
        let mut spec = held_by(me, held.lease.spec.as_ref(), microseconds());
        let attempted = spec.renew_time.clone();
        let before = held.lease.clone();
        // Remembered before sending, so that the next attempt knows it.
        if let Some(ours) = &mut held.lease.spec {
            ours.renew_time.clone_from(&attempted);
        }
        match self
            .election
            .write(Some(before.clone()), spec.clone())
            .await
        {
            Ok(lease) => {
                *held = Held {
                    lease,
                    renewed: sent,
                };
                return Ok(None);
            }
            Err(error) if is_race(&error) || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let found = self.election.read().await?;
        if let Some(found) = found.as_ref().and_then(|lease| lease.spec.as_ref()) {
            let known = [before.spec.and_then(|spec| spec.renew_time), attempted];
            let holder = found.holder_identity.clone().unwrap_or_default();
            if holder != *me || !known.contains(&found.renew_time) {
                return Ok(Some(Lost::Taken { holder }));
            }
        }
        // Deleted by somebody, or written by us before: write it again, in its present version.
        spec.renew_time = Some(MicroTime(microseconds()));
        let lease = self.election.write(found, spec).await?;
        *held = Held {
            lease,
            renewed: sent,
        };
        Ok(None)
    }

    /// Gives the lease back when it is still ours, so that another candidate takes it at its next
    /// look, within 2 s. A failure is logged: the lease then ends by itself.
    pub async fn release(self) {
        if let Err(error) = self.try_release().await {
            tracing::warn!(
                lease = %self.election.name,
                category = error.category(),
                "lease not released"
            );
        }
    }

    async fn try_release(&self) -> Result<(), Error> {
        let Some(lease) = self.election.read().await? else {
            return Ok(());
        };
        let mut spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.election.me) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        // As client-go does: should the empty name be overlooked, it ends in a second.
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(microseconds()));
        match self.election.write(Some(lease), spec).await {
            Ok(_) => Ok(()),
            Err(error) if is_race(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Somebody else wrote in between.
fn is_race(error: &Error) -> bool {
    matches!(error.category(), "Conflict" | "AlreadyExists")
}

/// Now, in the precision that the API stores: what comes back compares equal.
fn microseconds() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
