//! What is counted at each scrape, from caches: tenants, `DataStore`s, certificates. Nothing has to be kept in step
//! with them, and a restarted process is right at once.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use stoker_api::labels::PAUSED;
use stoker_api::v1alpha1::{DataStore, TenantControlPlane, VersionState};
use stoker_kube::conditions;
use time::OffsetDateTime;

use crate::tenant::status::ROLLOUT_TURN;
use crate::tenant::status::stuck::{self, Facts, Progress, ROLLOUT};
use crate::tenant::status::urgency::ready;

const STATES: [VersionState; 8] = [
    VersionState::Provisioning,
    VersionState::Ready,
    VersionState::WriteLimited,
    VersionState::NotReady,
    VersionState::Upgrading,
    VersionState::Sleeping,
    VersionState::Waking,
    VersionState::Deleting,
];

/// Dates of one tenant's certificates as last applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateDates {
    /// When the first certificate is due to be renewed.
    pub renew_at: OffsetDateTime,
    /// When the first authority ends: nothing that it signs lives longer.
    pub authorities_end: OffsetDateTime,
}

/// The fleet at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    tenants: BTreeMap<String, i64>,
    not_ready: BTreeMap<String, i64>,
    stuck: BTreeMap<String, i64>,
    rollouts: BTreeMap<String, i64>,
    data_stores: BTreeMap<String, i64>,
    renewal_due: Option<i64>,
    authorities_end: Option<i64>,
}

impl Fleet {
    /// Counts the fleet. Sleeping tenants are as wanted; paused ones are in somebody's hands and never stuck.
    pub fn of<T, D>(
        tenants: impl IntoIterator<Item = T>,
        data_stores: impl IntoIterator<Item = D>,
        certificates: impl IntoIterator<Item = CertificateDates>,
        now: Timestamp,
    ) -> Self
    where
        T: Borrow<TenantControlPlane>,
        D: Borrow<DataStore>,
    {
        let mut fleet = Self::default();
        for state in STATES {
            fleet.tenants.insert(format!("{state:?}"), 0);
        }
        for turn in ["Rolling", "Waiting"] {
            fleet.rollouts.insert(turn.to_owned(), 0);
        }
        for tenant in tenants {
            fleet.count(tenant.borrow(), now);
        }
        for ready in ["true", "false"] {
            fleet.data_stores.insert(ready.to_owned(), 0);
        }
        for data_store in data_stores {
            let status = data_store.borrow().status.as_ref();
            let ready = status.is_some_and(|status| status.ready);
            add(&mut fleet.data_stores, &ready.to_string());
        }
        for dates in certificates {
            earliest(&mut fleet.renewal_due, dates.renew_at);
            earliest(&mut fleet.authorities_end, dates.authorities_end);
        }
        fleet
    }

    fn count(&mut self, tenant: &TenantControlPlane, now: Timestamp) {
        let deleted_at = tenant.metadata.deletion_timestamp.as_ref();
        let status = tenant.status.as_ref();
        let state = match status {
            _ if deleted_at.is_some() => VersionState::Deleting,
            Some(status) => status.kubernetes_resources.version.status,
            None => VersionState::Provisioning,
        };
        add(&mut self.tenants, &format!("{state:?}"));
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        if let Some(turn) = conditions::find(conditions, ROLLOUT_TURN) {
            add(&mut self.rollouts, &turn.reason);
        }
        let paused = tenant.annotations().contains_key(PAUSED);
        let ready = status.and_then(ready);
        let facts = Facts {
            ready,
            deleted_at: deleted_at.map(|time| time.0),
            made_at: tenant
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            deployment: None,
        };
        // What its Deployment says is on the tenant.
        let said = status
            .and_then(stuck::stuck)
            .filter(|found| found.reason == ROLLOUT);
        if let Progress::Stuck { reason, .. } = stuck::progress(&facts, now)
            && !paused
        {
            add(&mut self.stuck, &reason);
        } else if let Some(said) = said
            && !paused
        {
            add(&mut self.stuck, &said.reason);
        }
        if state == VersionState::Sleeping
            || deleted_at.is_none() && ready.is_some_and(|ready| ready.status == "True")
        {
            return;
        }
        let reason = ready
            .filter(|ready| ready.status != "True")
            .map_or("NotLookedAt", |ready| &ready.reason);
        add(&mut self.not_ready, reason);
    }
}

fn add(counts: &mut BTreeMap<String, i64>, key: &str) {
    *counts.entry(key.to_owned()).or_default() += 1;
}

fn earliest(known: &mut Option<i64>, date: OffsetDateTime) {
    let date = date.unix_timestamp();
    *known = Some(known.map_or(date, |known| known.min(date)));
}

struct FleetCollector<F>(F);

impl<F> fmt::Debug for FleetCollector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetCollector")
    }
}

/// Encodes what `fleet` returns at every scrape.
pub(super) fn collector(fleet: impl Fn() -> Fleet + Send + Sync + 'static) -> Box<dyn Collector> {
    Box::new(FleetCollector(fleet))
}

impl<F: Fn() -> Fleet + Send + Sync + 'static> Collector for FleetCollector<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let fleet = self.0();
        let mut family = |name: &str, help: &str, label: &str, counts: &BTreeMap<String, i64>| {
            if counts.is_empty() {
                return Ok(());
            }
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (value, count) in counts {
                let labels = [(label, value.as_str())];
                ConstGauge::new(*count).encode(metric.encode_family(&labels)?)?;
            }
            fmt::Result::Ok(())
        };
        family(
            "tenant_control_planes",
            "Tenants by state",
            "state",
            &fleet.tenants,
        )?;
        family(
            "tenants_not_ready",
            "Tenants that should be ready and are not, by reason",
            "reason",
            &fleet.not_ready,
        )?;
        family(
            "tenants_stuck",
            "Tenants that are not ready, being deleted or being rolled out for more than ten minutes, by reason",
            "reason",
            &fleet.stuck,
        )?;
        family(
            "tenant_rollouts",
            "Tenants whose pods are replaced because of the operator's version or configuration: Rolling, or Waiting for their turn",
            "turn",
            &fleet.rollouts,
        )?;
        family(
            "data_stores",
            "DataStores by readiness",
            "ready",
            &fleet.data_stores,
        )?;
        let mut date = |name: &str, help: &str, date: Option<i64>| match date {
            Some(date) => ConstGauge::new(date).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?),
            None => Ok(()),
        };
        date(
            "certificates_renewal_due_timestamp_seconds",
            "When the first certificate of any tenant is due to be renewed",
            fleet.renewal_due,
        )?;
        date(
            "authorities_end_timestamp_seconds",
            "When the first certificate authority of any tenant ends",
            fleet.authorities_end,
        )
    }
}

#[cfg(test)]
mod tests;
