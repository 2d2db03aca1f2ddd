use k8s_openapi::ByteString;
use serde_json::json;
use stoker_pki::KubeconfigFacts;

use super::*;

const DAY: Duration = Duration::DAY;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn tenant() -> TenantControlPlane {
    let object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": {
            "name": "one", "namespace": "a", "uid": "u",
            "labels": { "team": "blue", "rank": "system:masters" },
        },
        "spec": {
            "controlPlane": { "service": { "serviceType": "ClusterIP" } },
            "kubernetes": { "version": "v1.36.3", "kubelet": {} },
        },
    });
    serde_json::from_value(object).unwrap()
}

fn generator(spec: &Value) -> KubeconfigGenerator {
    let mut whole = json!({ "user": { "stringValue": "auditor" } });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "KubeconfigGenerator",
        "metadata": { "name": "audit" }, "spec": whole,
    });
    serde_json::from_value(object).unwrap()
}

fn secret(name: &str, entries: &[(&str, &str)]) -> Secret {
    let entries = entries.iter().map(|(key, text)| {
        let bytes = ByteString(text.as_bytes().to_vec());
        ((*key).to_owned(), bytes)
    });
    let mut secret = Secret {
        data: Some(entries.collect()),
        ..Secret::default()
    };
    secret.metadata.name = Some(name.to_owned());
    secret
}

/// What is found of a tenant of this authority whose API server is at `server`.
fn found(authority: &Authority, server: &str) -> Found {
    let request = LeafRequest {
        common_name: "admin".into(),
        organizations: Vec::new(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: DAY,
    };
    let admin = kubeconfig(&KubeconfigRequest {
        cluster: "one".into(),
        server: server.into(),
        tls_server_name: None,
        authority: authority.certificate().into(),
        user: "admin".into(),
        credentials: KubeconfigCredentials::Inline(authority.issue(&request, now()).unwrap()),
    });
    let (certificate, key) = (authority.certificate(), authority.key().as_pem());
    Found {
        authority: Some(secret(
            "one-ca",
            &[("ca.crt", certificate), ("ca.key", key)],
        )),
        admin: Some(secret("one-admin-kubeconfig", &[("admin.svc", &admin)])),
        existing: None,
    }
}

fn authority() -> Authority {
    Authority::generate("one", DAY * 3650, now()).unwrap()
}

fn facts(secret: &Secret) -> KubeconfigFacts {
    parse_kubeconfig(&entry(Some(secret), "value").unwrap()).unwrap()
}

#[test]
fn values_come_from_the_spec_or_the_tenant_and_nobody_passes_by_authorization() {
    let from = |path: &str| json!({ "fromDefinition": path });
    let made = |spec: Value| inputs(&tenant(), &generator(&spec));
    let wanted = made(json!({
        "user": from("metadata.name"),
        "groups": [from("metadata.labels.team"), { "stringValue": "ops" }, { "stringValue": "ops" }],
        "controlPlaneEndpointFrom": "super-admin.conf",
        "expirationSeconds": 600,
    }));
    let wanted = wanted.unwrap();
    assert_eq!(wanted.user, "one");
    assert_eq!(wanted.groups, ["blue".to_owned(), "ops".to_owned()].into());
    assert_eq!(wanted.endpoint_from, "admin.conf");
    assert_eq!(wanted.lifetime, Duration::minutes(10));
    for path in [
        "metadata.nam",
        "metadata",
        "spec.controlPlane.service",
        "metadata.",
        "",
        "status.x",
    ] {
        let refused = made(json!({ "user": from(path) })).unwrap_err();
        assert_eq!(refused, Problem::NotFound(path.to_owned()));
    }
    let refused = made(json!({ "groups": [from("metadata.labels.rank")] }));
    assert_eq!(refused.unwrap_err(), Problem::Masters);
}

#[test]
fn a_good_certificate_stays_and_any_other_is_replaced() {
    let (tenant, authority) = (tenant(), authority());
    let spec = |spec: Value| inputs(&tenant, &generator(&spec)).unwrap();
    let mut found = found(&authority, "https://one.a.svc:6443");
    let plain = spec(json!({ "groups": [{ "stringValue": "ops" }] }));
    let build_at =
        |inputs: &Inputs, found: &Found, now| build(&tenant, "audit", inputs, found, now).unwrap();
    let first = build_at(&plain, &found, now());
    let made = facts(&first.secret);
    assert_eq!((&*made.cluster, &*made.user), ("one", "audit"));
    assert_eq!(made.server, "https://one.a.svc:6443");
    assert_eq!(not_after(&made.certificate).unwrap(), now() + DAY);
    assert!(first.renew_at > now() + Duration::hours(15) && first.renew_at < now() + DAY);
    assert_eq!(first.secret.name_any(), "one-audit");
    assert_eq!(first.secret.labels()["stoker.dev/managed-by"], "audit");
    assert_eq!(first.secret.labels()["stoker.dev/managed-for"], "one");

    found.existing = Some(first.secret.clone());
    let again = build_at(&plain, &found, now() + Duration::hours(10));
    assert_eq!(again.secret, first.secret);
    assert_eq!(again.renew_at, first.renew_at);
    // Another address needs no other certificate.
    let moved = Found {
        admin: super::tests::found(&authority, "https://192.0.2.7:6443").admin,
        ..super::tests::found(&authority, "")
    };
    let moved = Found {
        existing: found.existing.clone(),
        ..moved
    };
    let moved = facts(&build_at(&plain, &moved, now()).secret);
    assert_eq!(moved.server, "https://192.0.2.7:6443");
    assert_eq!(moved.certificate, made.certificate);

    let reissued = |inputs: &Inputs, found: &Found, at| {
        facts(&build_at(inputs, found, at).secret).certificate != made.certificate
    };
    assert!(reissued(&plain, &found, first.renew_at));
    let other = [
        json!({ "groups": [{ "stringValue": "ops" }, { "stringValue": "dev" }] }),
        json!({ "groups": [] }),
        json!({ "groups": [{ "stringValue": "ops" }], "user": { "stringValue": "other" } }),
        // Shorter from now on; a longer one waits for the next time.
        json!({ "groups": [{ "stringValue": "ops" }], "expirationSeconds": 3600 }),
    ];
    for changed in other {
        assert!(reissued(&spec(changed.clone()), &found, now()), "{changed}");
    }
    let longer = json!({ "groups": [{ "stringValue": "ops" }], "expirationSeconds": 31_536_000 });
    assert!(!reissued(&spec(longer), &found, now()));
    // Another authority of the tenant, and garbage in the Secret.
    let mut replaced = super::tests::found(&super::tests::authority(), "https://x");
    replaced.existing = found.existing.clone();
    assert!(reissued(&plain, &replaced, now()));
    let data = found.existing.as_mut().unwrap().data.as_mut().unwrap();
    data.insert("value".into(), ByteString(b"garbage".to_vec()));
    assert!(reissued(&plain, &found, now()));
}

#[test]
fn what_is_missing_is_waited_for_and_what_is_not_ours_is_left_alone() {
    let (tenant, authority) = (tenant(), authority());
    let plain = inputs(&tenant, &generator(&json!({}))).unwrap();
    let outside = json!({ "controlPlaneEndpointFrom": "admin.conf" });
    let outside = inputs(&tenant, &generator(&outside)).unwrap();
    let whole = || found(&authority, "https://x");
    let refused = |inputs: &Inputs, found: &Found| {
        build(&tenant, "audit", inputs, found, now()).err().unwrap()
    };
    assert!(
        refused(&outside, &whole()).is_wait(),
        "no address outside yet"
    );
    assert!(
        refused(
            &plain,
            &Found {
                admin: None,
                ..whole()
            }
        )
        .is_wait()
    );
    assert!(
        refused(
            &plain,
            &Found {
                authority: None,
                ..whole()
            }
        )
        .is_wait()
    );
    let garbage = Some(secret("one-ca", &[("ca.crt", "x"), ("ca.key", "hunter2")]));
    let unusable = refused(
        &plain,
        &Found {
            authority: garbage,
            ..whole()
        },
    );
    assert!(!unusable.is_wait() && !unusable.to_string().contains("hunter2"));

    let standing = |labels: Value, owner: Option<&str>| {
        let mut existing = secret("one-audit", &[]);
        existing.metadata.labels = serde_json::from_value(labels).unwrap();
        let owner = owner.map(|uid| {
            let owner = json!({ "apiVersion": "v", "kind": "k", "name": "n", "uid": uid, "controller": true });
            vec![serde_json::from_value(owner).unwrap()]
        });
        existing.metadata.owner_references = owner;
        Found {
            existing: Some(existing),
            ..whole()
        }
    };
    let ours = json!({ "stoker.dev/managed-by": "audit", "stoker.dev/managed-for": "one" });
    let others = json!({ "stoker.dev/managed-by": "it", "stoker.dev/managed-for": "one-aud" });
    for (labels, owner, is_ours) in [
        (json!({}), None, false),
        (json!({}), Some("another"), false),
        (others, None, false),
        (ours.clone(), Some("another"), false),
        (ours, None, true),
        (json!({}), Some("u"), true),
    ] {
        let built = build(&tenant, "audit", &plain, &standing(labels, owner), now());
        assert_eq!(built.is_ok(), is_ours, "{owner:?}");
    }
}
