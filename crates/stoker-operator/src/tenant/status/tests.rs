use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;
use stoker_api::StorageId;
use stoker_api::v1alpha1::TenantControlPlane;

use super::super::identity::storage_status;
use super::*;

const OLD: &str = "v1.35.4";
const NEW: &str = "v1.36.3";

fn tenant(replicas: i32, version: &str) -> Tenant {
    let object: TenantControlPlane = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "one", "namespace": "a", "uid": "u", "generation": 1 },
        "spec": {
            "controlPlane": {
                "deployment": { "replicas": replicas },
                "service": { "serviceType": "ClusterIP" },
            },
            "kubernetes": { "version": version, "kubelet": {} },
        },
    }))
    .unwrap();
    Tenant::validate(&object).unwrap()
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Every aspect holds.
fn good() -> Findings {
    let mut findings = Findings {
        applied: true,
        ..Findings::default()
    };
    for aspect in Aspect::ALL {
        findings.holds(aspect, "Good", "it holds");
    }
    findings
}

/// Replicas, all ready; those of the latest template; its generation, and that which the counters speak of.
type Counters = [i64; 4];

fn deployment([replicas, updated, generation, observed]: Counters) -> Deployment {
    let deployment = json!({
        "metadata": { "generation": generation },
        "status": {
            "observedGeneration": observed, "replicas": replicas,
            "readyReplicas": replicas, "updatedReplicas": updated,
        },
    });
    serde_json::from_value(deployment).unwrap()
}

fn condition<'a>(status: &'a TenantControlPlaneStatus, type_: &str) -> &'a Condition {
    let mut conditions = status.conditions.iter();
    conditions.find(|found| found.type_ == type_).unwrap()
}

fn of(findings: &Findings, tenant: &Tenant) -> TenantControlPlaneStatus {
    let old = TenantControlPlaneStatus::default();
    status(&old, Some(tenant), 1, findings, second(1))
}

#[test]
fn each_aspect_that_fails_makes_the_tenant_unready_and_gives_the_reason() {
    let tenant = tenant(1, NEW);
    let ready = of(&good(), &tenant);
    assert_eq!(condition(&ready, "Ready").status, "True");
    assert_eq!(condition(&ready, "Ready").reason, "Available");
    for aspect in Aspect::ALL {
        let mut findings = good();
        findings.checks.retain(|(found, _)| *found != aspect);
        findings.fails(aspect, "Broken", "because");
        let status = of(&findings, &tenant);
        for type_ in [aspect.condition(), "Ready"] {
            let found = condition(&status, type_);
            let said = (
                found.status.as_str(),
                found.reason.as_str(),
                found.message.as_str(),
            );
            assert_eq!(said, ("False", "Broken", "because"), "{type_}");
        }
        let good = status
            .conditions
            .iter()
            .filter(|found| found.status == "True");
        assert_eq!(good.count(), Aspect::ALL.len() - 1);
    }
}

#[test]
fn of_several_failures_the_first_aspect_speaks_whatever_was_looked_at_first() {
    let mut findings = Findings::default();
    for (aspect, reason) in [
        (Aspect::TenantConfigured, "Third"),
        (Aspect::ControlPlaneApplied, "Second"),
        (Aspect::DataStoreReady, "First"),
    ] {
        findings.fails(aspect, reason, "");
    }
    findings.holds(Aspect::Valid, "Accepted", "");
    let status = of(&findings, &tenant(1, NEW));
    assert_eq!(condition(&status, "Ready").reason, "First");
    assert_eq!(condition(&status, "TenantConfigured").reason, "Third");
}

#[test]
fn what_fails_once_in_a_pass_is_not_talked_over_by_what_holds_later() {
    let mut findings = Findings::default();
    findings.fails(Aspect::Valid, "First", "");
    findings.fails(Aspect::Valid, "Second", "");
    findings.holds(Aspect::Valid, "Third", "");
    let status = of(&findings, &tenant(1, NEW));
    assert_eq!(condition(&status, "Valid").reason, "First");
}

#[test]
fn what_was_not_looked_at_keeps_its_condition_and_a_new_tenant_is_provisioned() {
    let tenant = tenant(1, NEW);
    let mut findings = Findings::default();
    findings.holds(Aspect::Valid, "Accepted", "");
    let young = of(&findings, &tenant);
    assert_eq!(condition(&young, "Ready").reason, "Provisioning");
    assert_eq!(
        young.kubernetes_resources.version.status,
        VersionState::Provisioning
    );
    assert_eq!(
        young.conditions.len(),
        2,
        "nothing is said of what was not looked at"
    );

    let ready = of(&good(), &tenant);
    let again = status(&ready, Some(&tenant), 2, &findings, second(2));
    assert_eq!(condition(&again, "Ready").status, "True");
    let kept = condition(&again, "TenantConfigured");
    assert_eq!(
        (kept.status.as_str(), kept.observed_generation),
        ("True", Some(1))
    );
}

#[test]
fn the_generation_is_always_said_and_times_change_only_with_the_state() {
    let tenant = tenant(1, NEW);
    let first = of(&good(), &tenant);
    let mut findings = good();
    findings.checks.retain(|(found, _)| *found != Aspect::Valid);
    findings.holds(Aspect::Valid, "Otherwise", "in other words");
    let same = status(&first, Some(&tenant), 7, &findings, second(2));
    assert_eq!(same.observed_generation, 7);
    for found in &same.conditions {
        assert_eq!(found.last_transition_time.0, second(1), "{}", found.type_);
        assert_eq!(found.observed_generation, Some(7));
    }
    assert_eq!(condition(&same, "Valid").reason, "Otherwise");

    findings
        .checks
        .retain(|(found, _)| *found != Aspect::ApiServerAvailable);
    findings.fails(Aspect::ApiServerAvailable, "Gone", "");
    let failed = status(&same, Some(&tenant), 7, &findings, second(3));
    for found in &failed.conditions {
        let changed = ["APIServerAvailable", "Ready"].contains(&found.type_.as_str());
        let expected = second(if changed { 3 } else { 1 });
        assert_eq!(found.last_transition_time.0, expected, "{}", found.type_);
    }
    let invalid = status(&failed, None, 8, &Findings::default(), second(4));
    assert_eq!(invalid.observed_generation, 8);
    assert_eq!(invalid.storage, failed.storage);
}

#[test]
fn the_word_for_the_tenant_follows_version_replicas_and_readiness() {
    use VersionState::{NotReady, Provisioning, Ready, Sleeping, Upgrading};
    // Installed before, wanted replicas and version, ready, the Deployment; then installed, word.
    let full = Some([2, 2, 3, 3]);
    let table: [(_, _, _, _, Option<Counters>, _, _); 12] = [
        (None, 2, NEW, false, None, None, Provisioning),
        (None, 2, NEW, true, None, Some(NEW), Ready),
        (Some(NEW), 2, NEW, true, full, Some(NEW), Ready),
        (Some(NEW), 2, NEW, false, full, Some(NEW), NotReady),
        (Some(NEW), 0, NEW, false, full, Some(NEW), Sleeping),
        (None, 0, NEW, false, None, None, Sleeping),
        // An old pod still runs; the controller has not seen the template; a pod is missing; not ready.
        (
            Some(OLD),
            2,
            NEW,
            true,
            Some([3, 1, 3, 3]),
            Some(OLD),
            Upgrading,
        ),
        (
            Some(OLD),
            2,
            NEW,
            true,
            Some([2, 2, 4, 3]),
            Some(OLD),
            Upgrading,
        ),
        (
            Some(OLD),
            2,
            NEW,
            true,
            Some([1, 1, 3, 3]),
            Some(OLD),
            Upgrading,
        ),
        (Some(OLD), 2, NEW, true, None, Some(OLD), Upgrading),
        (Some(OLD), 2, NEW, false, full, Some(OLD), Upgrading),
        (Some(OLD), 2, NEW, true, full, Some(NEW), Ready),
    ];
    for (row, (before, replicas, wanted, ready, counters, after, word)) in
        table.into_iter().enumerate()
    {
        let mut old = TenantControlPlaneStatus::default();
        old.kubernetes_resources.version.version = before.map(str::to_owned);
        let mut findings = good();
        findings.deployment = counters.map(deployment);
        if !ready {
            findings
                .checks
                .retain(|(found, _)| *found != Aspect::ApiServerAvailable);
            findings.fails(Aspect::ApiServerAvailable, "PodsStarting", "");
        }
        let tenant = tenant(replicas, wanted);
        let new = status(&old, Some(&tenant), 1, &findings, second(1));
        let version = &new.kubernetes_resources.version;
        assert_eq!(version.version.as_deref(), after, "row {row}");
        assert_eq!(version.status, word, "row {row}");
    }
}

#[test]
fn a_tenant_is_write_limited_from_when_that_was_seen_until_the_contrary_is() {
    use VersionState::{NotReady, Ready, WriteLimited};
    let tenant = tenant(2, NEW);
    let found = [
        (None, true, Ready),
        (Some(Check::fails("Applying", "")), true, Ready),
        (Some(Check::holds(writes::LIMITED, "")), true, WriteLimited),
        (None, true, WriteLimited),
        (None, false, NotReady),
        (None, true, WriteLimited),
        (
            Some(Check::fails("GuardUnreachable", "")),
            true,
            WriteLimited,
        ),
        (Some(Check::holds("Writable", "")), true, Ready),
        (Some(Check::fails("Applying", "")), true, Ready),
    ];
    let mut status = of(&good(), &tenant);
    for (row, (check, ready, word)) in found.into_iter().enumerate() {
        let mut findings = good();
        findings.deployment = Some(deployment([2, 2, 3, 3]));
        findings.writes = check;
        if !ready {
            findings
                .checks
                .retain(|(found, _)| *found != Aspect::ApiServerAvailable);
            findings.fails(Aspect::ApiServerAvailable, "PodsStarting", "");
        }
        status = super::status(&status, Some(&tenant), 1, &findings, second(2));
        let said = status.kubernetes_resources.version.status;
        assert_eq!(said, word, "row {row}");
        assert_eq!(condition(&status, "Ready").status == "True", ready);
    }
}

#[test]
fn a_sleeping_tenant_is_not_ready_even_where_every_condition_holds() {
    let status = of(&good(), &tenant(0, NEW));
    assert_eq!(condition(&status, "Ready").reason, "Sleeping");
}

#[test]
fn names_are_said_once_the_objects_are_there_and_the_identity_is_never_dropped() {
    let tenant = tenant(1, NEW);
    let id = StorageId::random().unwrap();
    let mut findings = Findings {
        storage: Some(storage_status(&id, "pool", "one")),
        ..Findings::default()
    };
    let claimed = of(&findings, &tenant);
    assert_eq!(claimed.certificates, CertificatesStatus::default());
    assert_eq!(
        claimed.storage.as_ref().unwrap().setup.schema,
        id.to_string()
    );

    findings.storage = None;
    findings.applied = true;
    findings.deployment = Some(deployment([1, 1, 1, 1]));
    let applied = status(&claimed, Some(&tenant), 1, &findings, second(2));
    assert_eq!(applied.storage, claimed.storage);
    assert_eq!(applied.certificates.ca.secret_name, "one-ca");
    assert_eq!(applied.kubeconfig.admin.secret_name, "one-admin-kubeconfig");
    let deployment = &applied.kubernetes_resources.deployment;
    assert_eq!(deployment.selector, "stoker.dev/name=one");
    assert_eq!(
        (
            deployment.replicas,
            deployment.ready_replicas,
            deployment.updated_replicas
        ),
        (1, 1, 1)
    );
}
