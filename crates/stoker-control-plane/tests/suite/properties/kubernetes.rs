//! `spec.kubernetes` as people write it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use stoker_api::version::KubernetesVersion;
use stoker_api::{feature_gates, runtime_config};

use super::object;
use crate::flag_oracle::RELEASES;

/// Some of these names, on or off.
fn switched(names: Vec<&'static str>) -> BoxedStrategy<Value> {
    let each = (select(names), any::<bool>());
    let some = vec(each, 0..4);
    some.prop_map(|all| {
        all.into_iter()
            .map(|(name, on)| (name.to_owned(), json!(on)))
            .collect()
    })
    .prop_map(Value::Object)
    .boxed()
}

/// The release, and what is configured by fields of their own.
pub(super) fn kubernetes() -> BoxedStrategy<Value> {
    let issuer = |url: &str| {
        json!({
            "issuer": { "url": url, "audiences": ["a"] },
            "claimMappings": { "username": { "claim": "sub", "prefix": "" } },
        })
    };
    let jwt = vec![
        json!({ "jwt": [issuer("https://a.example.com")] }),
        json!({ "jwt": [issuer("https://a.example.com"), issuer("https://b.example.com")] }),
    ];
    let audit = vec![
        json!({}),
        json!({ "log": { "maxAge": 1 }, "webhook": { "secretName": "sink" } }),
        json!({ "webhook": { "secretName": "sink" } }),
        json!({ "policy": { "rules": [{ "level": "RequestResponse" }] } }),
    ];
    let encryption = vec![
        json!({ "provider": "aescbc", "keyGeneration": 1 }),
        json!({ "provider": "aesgcm", "resources": ["configmaps", "secrets"] }),
    ];
    let plugins = vec![
        json!(["AlwaysPullImages"]),
        json!(["NodeRestriction", "PodSecurity"]),
    ];
    let issuers = vec![
        json!(["https://oidc.example.com"]),
        json!([
            "https://oidc.example.com/b/",
            "https://kubernetes.default.svc.cluster.local"
        ]),
    ];
    let asked = object(vec![
        ("authentication", jwt),
        ("audit", audit),
        ("encryption", encryption),
        ("admissionControllers", plugins),
        ("serviceAccountIssuers", issuers),
        // Moved to its place by `validated`.
        ("size", ["Small", "XLarge"].map(|size| json!(size)).into()),
    ]);
    let switches = select(RELEASES.to_vec()).prop_flat_map(|release| {
        let minor = release.parse::<KubernetesVersion>().unwrap().minor;
        let gates = feature_gates::of(minor).filter(|gate| {
            let on = [((*gate).to_owned(), false)].into();
            feature_gates::check(release.parse().unwrap(), &on).is_ok()
        });
        let versions = runtime_config::of(minor).chain(["api/beta", "api/alpha"]);
        (
            Just(release),
            switched(gates.collect()),
            switched(versions.collect()),
        )
    });
    (asked, switches)
        .prop_map(|(mut asked, (release, gates, versions))| {
            asked["version"] = json!(release);
            asked["featureGates"] = gates;
            asked["runtimeConfig"] = versions;
            asked["kubelet"] = json!({});
            asked
        })
        .boxed()
}
