//! Feature gates, versions of the API, issuers of tokens and size classes.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};
use stoker_control_plane::check_authentication;

use crate::golden::check;
use crate::scenario::{STABLE_NAME, Scenario, pod, spec};

const COMMON: &str = "https://kubernetes.default.svc.cluster.local";

fn with(version: &str, kubernetes: &Value, control_plane: &Value, name: Option<&str>) -> Scenario {
    let mut spec = spec("ClusterIP", 1, version, &json!({}));
    json_patch::merge(&mut spec["kubernetes"], kubernetes);
    json_patch::merge(&mut spec["controlPlane"], control_plane);
    Scenario::named(&spec, name, None)
}

fn container(scenario: &Scenario, place: usize) -> Container {
    pod(&scenario.build()).containers[place].clone()
}

/// The values of a flag of one of the three components.
fn values(scenario: &Scenario, place: usize, name: &str) -> Vec<String> {
    let flags = container(scenario, place).args.unwrap();
    let prefix = format!("--{name}=");
    let values = flags.iter().filter_map(|flag| flag.strip_prefix(&prefix));
    values.map(str::to_owned).collect()
}

#[test]
fn every_switch_at_once() {
    let kubernetes = json!({
        "featureGates": { "CPUManagerPolicyAlphaOptions": true, "WatchListClient": false },
        "runtimeConfig": { "api/alpha": true, "resource.k8s.io/v1beta1": true },
        "serviceAccountIssuers": ["https://oidc.example.com/a", "https://oidc.example.com/b/"],
    });
    let control_plane = json!({ "size": "Medium" });
    check(
        "switches",
        &with("v1.36.3", &kubernetes, &control_plane, Some(STABLE_NAME)),
    );
}

#[test]
fn gates_reach_every_component() {
    let asked = json!({ "featureGates": { "WatchListClient": false, "ContextualLogging": true } });
    let scenario = with("v1.36.3", &asked, &json!({}), None);
    let asked = "ContextualLogging=true,WatchListClient=false";
    let ours = format!("UnknownVersionInteroperabilityProxy=false,{asked}");
    assert_eq!(values(&scenario, 0, "feature-gates"), [ours]);
    assert_eq!(values(&scenario, 1, "feature-gates"), [asked]);
    assert_eq!(values(&scenario, 2, "feature-gates"), [asked]);
}

/// The last of two settings of one gate or version counts.
#[test]
fn arguments_come_behind_the_fields() {
    let fields = json!({
        "featureGates": { "ContextualLogging": true }, "runtimeConfig": { "api/beta": true },
    });
    let arguments = json!({ "deployment": { "extraArgs": {
        "apiServer": ["--runtime_config=api/beta=false"],
        "scheduler": ["--feature-gates=ContextualLogging=false"],
    } } });
    let scenario = with("v1.35.4", &fields, &arguments, None);
    assert_eq!(
        values(&scenario, 0, "runtime-config"),
        ["api/beta=true", "api/beta=false"]
    );
    assert_eq!(
        values(&scenario, 2, "feature-gates"),
        ["ContextualLogging=true,ContextualLogging=false"]
    );
}

#[test]
fn the_first_issuer_signs_and_those_of_before_are_believed() {
    let stable = format!("https://{STABLE_NAME}");
    let issuers = |asked: &Value, name| {
        let scenario = with(
            "v1.36.3",
            &json!({ "serviceAccountIssuers": asked }),
            &json!({}),
            name,
        );
        let keys = values(&scenario, 0, "service-account-jwks-uri");
        (values(&scenario, 0, "service-account-issuer"), keys)
    };
    let (all, keys) = issuers(&json!([]), None);
    assert_eq!(
        (all, keys),
        (
            vec![COMMON.to_owned()],
            vec![format!("{COMMON}/openid/v1/jwks")]
        )
    );
    let (all, keys) = issuers(
        &json!(["https://b.example.com/", COMMON]),
        Some(STABLE_NAME),
    );
    assert_eq!(all, ["https://b.example.com/", COMMON, &stable]);
    assert_eq!(keys, ["https://b.example.com/openid/v1/jwks"]);
    let (all, _) = issuers(
        &json!(["https://b.example.com", "https://a.example.com"]),
        None,
    );
    assert_eq!(
        all,
        ["https://b.example.com", "https://a.example.com", COMMON]
    );
}

/// Issuers among the arguments are the only ones, and the discovery document follows the first.
#[test]
fn the_keys_are_below_the_issuer_of_an_argument_too() {
    let keys = |issuers: [&str; 2]| {
        let arguments: Vec<String> = issuers
            .map(|issuer| format!("--service-account-issuer={issuer}"))
            .into();
        let control_plane = json!({ "deployment": { "extraArgs": { "apiServer": arguments } } });
        let scenario = with("v1.36.3", &json!({}), &control_plane, Some(STABLE_NAME));
        assert_eq!(values(&scenario, 0, "service-account-issuer"), issuers);
        values(&scenario, 0, "service-account-jwks-uri").concat()
    };
    assert_eq!(
        keys(["https://a.example.com", "b"]),
        "https://a.example.com/openid/v1/jwks"
    );
    // kube-apiserver would not start with anything but https.
    assert_eq!(
        keys(["legacy", "legacier"]),
        format!("{COMMON}/openid/v1/jwks")
    );
}

#[test]
fn nobody_else_issues_tokens_under_a_name_of_the_tenants() {
    let refused = |url: &str, control_plane: &Value, name: Option<&str>| {
        let jwt = json!([{
            "issuer": { "url": url, "audiences": ["stoker"] },
            "claimMappings": { "username": { "claim": "sub", "prefix": "" } },
        }]);
        let scenario = with(
            "v1.36.3",
            &json!({ "authentication": { "jwt": jwt } }),
            control_plane,
            name,
        );
        check_authentication(&scenario.tenant, name).is_err()
    };
    let stable = format!("https://{STABLE_NAME}");
    let argument = json!({ "deployment": { "extraArgs": {
        "apiServer": ["--service-account-issuer=https://a.example.com"],
    } } });
    assert!(refused(&stable, &json!({}), Some(STABLE_NAME)));
    assert!(refused(COMMON, &json!({}), Some(STABLE_NAME)));
    assert!(refused("https://a.example.com", &argument, None));
    assert!(!refused(
        "https://a.example.com",
        &json!({}),
        Some(STABLE_NAME)
    ));
    // Not the tenant's own any more.
    assert!(!refused(COMMON, &argument, None));
}

#[test]
fn a_size_is_a_default_for_requests_and_limits_of_requests() {
    let plain = with("v1.36.3", &json!({}), &json!({}), None);
    let sized = |size: &str, deployment: Value| {
        let control_plane = json!({ "size": size, "deployment": deployment });
        with("v1.36.3", &json!({}), &control_plane, None)
    };
    let large = sized("Large", json!({}));
    assert_eq!(values(&plain, 0, "max-requests-inflight"), [""; 0]);
    assert_eq!(values(&large, 0, "max-requests-inflight"), ["800"]);
    assert_eq!(values(&large, 0, "max-mutating-requests-inflight"), ["400"]);
    assert_eq!(values(&large, 1, "kube-api-qps"), ["100"]);
    assert_eq!(values(&large, 2, "kube-api-burst"), ["400"]);
    let asked = sized(
        "Large",
        json!({
            "resources": { "apiServer": { "requests": { "cpu": 7 }, "limits": { "memory": "1Gi" } } },
            "extraArgs": { "apiServer": ["--max-requests-inflight=5"] },
        }),
    );
    assert_eq!(values(&asked, 0, "max-requests-inflight"), ["5"]);
    assert_eq!(values(&asked, 0, "max-mutating-requests-inflight"), ["400"]);
    let resources = serde_json::to_value(container(&asked, 0).resources).unwrap();
    assert_eq!(
        resources,
        json!({ "requests": { "cpu": "7" }, "limits": { "memory": "1Gi" } })
    );
}

/// The table that people read, in units.
#[test]
fn the_documents_have_every_size_as_it_is() {
    let text = include_str!("../../../../docs/configuration.md");
    for size in ["Small", "Medium", "Large", "XLarge"] {
        let scenario = with("v1.36.3", &json!({}), &json!({ "size": size }), None);
        let requests = |place| {
            let requests = container(&scenario, place)
                .resources
                .unwrap()
                .requests
                .unwrap();
            format!("{} / {}", requests["cpu"].0, requests["memory"].0)
        };
        let pair = |place, first, second| {
            let value = |name| values(&scenario, place, name).concat();
            format!("{} / {}", value(first), value(second))
        };
        let cells = [
            requests(0),
            requests(1),
            requests(2),
            pair(0, "max-requests-inflight", "max-mutating-requests-inflight"),
            pair(1, "kube-api-qps", "kube-api-burst"),
            pair(2, "kube-api-qps", "kube-api-burst"),
        ];
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{size}` |")))
            .unwrap();
        assert!(
            row.ends_with(&format!("| {} |", cells.join(" | "))),
            "{row}\n{cells:?}"
        );
    }
}
