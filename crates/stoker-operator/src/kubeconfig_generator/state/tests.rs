use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use stoker_api::labels::GENERATED_FOR;
use time::OffsetDateTime;

use super::*;

fn generator(name: &str, metadata: &Value, spec: &Value) -> KubeconfigGenerator {
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "KubeconfigGenerator",
        "metadata": metadata, "spec": spec,
    });
    object["metadata"]["name"] = json!(name);
    object["spec"]["user"] = json!({ "stringValue": "auditor" });
    serde_json::from_value(object).unwrap()
}

fn tenant(labels: &Value) -> TenantControlPlane {
    let object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "name": "one", "namespace": "a", "uid": "u", "labels": labels },
        "spec": {
            "controlPlane": { "service": { "serviceType": "ClusterIP" } },
            "kubernetes": { "version": "v1.36.3", "kubelet": {} },
        },
    });
    serde_json::from_value(object).unwrap()
}

fn world() -> (Kubeconfigs, Woken, Writer<KubeconfigGenerator>) {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let (kubeconfigs, woken) = Kubeconfigs::new(store);
    (kubeconfigs, woken, writer)
}

#[test]
fn who_is_selected_and_what_stays_as_it_is() {
    let (kubeconfigs, _woken, mut writer) = world();
    let (none, by_label) = (
        json!({}),
        json!({ "tenantControlPlaneSelector": { "matchLabels": { "tier": "gold" } } }),
    );
    let by_namespace = json!({ "namespaceSelector": { "matchLabels": { "zone": "x" } } });
    let paused = json!({ "annotations": { "stoker.dev/paused": "" } });
    let leaving = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
    for (name, metadata, spec) in [
        ("all", &none, &none),
        ("gold", &none, &by_label),
        ("zone", &none, &by_namespace),
        ("paused", &paused, &none),
        ("leaving", &leaving, &none),
    ] {
        let object = generator(name, metadata, spec);
        writer.apply_watcher_event(&Event::Apply(object));
    }
    let selected = |labels: Value| {
        let selected = kubeconfigs.selected(&tenant(&labels));
        let names = selected.wanted.iter().map(|wanted| wanted.name_any());
        let wanted: BTreeSet<String> = names.collect();
        let joined = |names: BTreeSet<String>| Vec::from_iter(names).join(" ");
        (joined(wanted), joined(selected.untouched))
    };
    let expect = |labels: Value, wanted: &str, untouched: &str| {
        assert_eq!(selected(labels), (wanted.to_owned(), untouched.to_owned()));
    };
    expect(json!({}), "all", "paused zone");
    expect(json!({ "tier": "gold" }), "all gold", "paused zone");
    let known = |labels: Value| {
        let labels = serde_json::from_value(labels).unwrap();
        *lock(&kubeconfigs.namespaces) = Some([("a".to_owned(), labels)].into());
    };
    known(json!({ "zone": "x" }));
    expect(json!({}), "all zone", "paused");
    known(json!({ "zone": "y" }));
    expect(json!({}), "all", "paused");
}

fn change(name: &str, version: &str, generated: bool, deleted: bool) -> Change {
    let mut metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some("a".into()),
        uid: Some(format!("uid of {name}")),
        resource_version: Some(version.into()),
        ..ObjectMeta::default()
    };
    if generated {
        let labels = [(GENERATED_BY, "audit"), (GENERATED_FOR, "one")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        metadata.labels = Some(labels.into());
    }
    Change {
        key: ObjectKey::of::<Secret>(Some("a"), name),
        metadata,
        deleted,
    }
}

#[test]
fn without_a_generator_nothing_is_kept_and_nobody_is_woken() {
    let (kubeconfigs, mut woken, mut writer) = world();
    let one = ObjectRef::new("one").within("a");
    kubeconfigs.saw_tenant(&one);
    kubeconfigs.saw_secret(&one, &change("one-ca", "1", false, false));
    kubeconfigs.saw_secret(&one, &change("one-audit", "1", true, true));
    assert!(woken.tenants.try_recv().is_err());
    assert!(kubeconfigs.get(&one).is_none());
    // What one has left behind is found, though.
    kubeconfigs.saw_secret(&one, &change("one-audit", "1", true, false));
    assert_eq!(woken.tenants.try_recv().unwrap(), one);
    let state = kubeconfigs.get(&one).unwrap();
    assert_eq!(state.others(&BTreeSet::new()).len(), 1);
    let kept = ["one-audit".to_owned()].into();
    assert_eq!(state.others(&kept).len(), 0);

    let all = generator("all", &json!({}), &json!({}));
    writer.apply_watcher_event(&Event::Apply(all));
    for name in ["one-ca", "one-admin-kubeconfig"] {
        kubeconfigs.saw_secret(&one, &change(name, "2", false, false));
        assert_eq!(woken.tenants.try_recv().unwrap(), one, "{name}");
    }
    kubeconfigs.saw_secret(&one, &change("one-scheduler-kubeconfig", "2", false, false));
    assert!(woken.tenants.try_recv().is_err());
    kubeconfigs.saw_tenant(&one);
    assert_eq!(woken.tenants.try_recv().unwrap(), one);
}

#[test]
fn a_change_noticed_while_a_pass_works_is_not_taken_for_seen() {
    let state = TenantKubeconfigs::default();
    let inputs = Inputs {
        tenant: "u".into(),
        user: "auditor".into(),
        groups: BTreeSet::new(),
        endpoint_from: "admin.svc".into(),
        lifetime: time::Duration::DAY,
    };
    let (now, due) = (
        OffsetDateTime::UNIX_EPOCH,
        OffsetDateTime::UNIX_EPOCH + time::Duration::DAY,
    );
    assert!(state.record("audit", Ok(due)));
    assert!(
        !state.record("audit", Ok(due + time::Duration::DAY)),
        "a renewal is no news"
    );
    assert!(state.record("audit", Err(Problem::Masters)));
    assert!(state.record("audit", Ok(due)));
    let counted = state.disturbances();
    state.unsettle();
    state.settle("audit", inputs.clone(), counted);
    assert_eq!(state.is_settled("audit", &inputs, now), None);
    state.settle("audit", inputs.clone(), state.disturbances());
    assert_eq!(state.is_settled("audit", &inputs, now), Some(due));
    assert_eq!(state.is_settled("audit", &inputs, due), None, "due");
    let other = Inputs {
        user: "other".into(),
        ..inputs.clone()
    };
    assert_eq!(state.is_settled("audit", &other, now), None);
    state.unsettle();
    assert_eq!(state.is_settled("audit", &inputs, now), None);
    assert_eq!(state.retain(&BTreeSet::new()), ["audit"]);
    assert_eq!(state.next_due(), None);
}
