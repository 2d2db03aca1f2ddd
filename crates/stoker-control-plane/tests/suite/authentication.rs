//! Who is authenticated how, and what an API server would not start by.

use serde_json::{Value, json};
use stoker_control_plane::check_authentication;
use stoker_pki::Authority;
use time::Duration;

use crate::golden::check;
use crate::scenario::{STABLE_NAME, Scenario, now, spec};

fn with(version: &str, jwt: &Value) -> Scenario {
    let mut spec = spec("ClusterIP", 1, version, &json!({}));
    spec["kubernetes"]["authentication"] = json!({ "jwt": jwt });
    Scenario::new(&spec, None)
}

fn issuer(more: &Value) -> Value {
    let mut jwt = json!({
        "issuer": { "url": "https://login.example.com", "audiences": ["stoker"] },
        "claimMappings": { "username": { "claim": "sub", "prefix": "sso:" } },
    });
    json_patch::merge(&mut jwt, more);
    jwt
}

fn configuration(scenario: &Scenario) -> Value {
    let maps = scenario.build().config_maps;
    let texts = maps.iter().flat_map(|map| map.data.iter().flatten());
    let text = texts
        .filter(|(name, _)| *name == "authentication-config.yaml")
        .map(|(_, text)| text)
        .next()
        .unwrap();
    serde_saphyr::from_str(text).unwrap()
}

fn refused(more: &Value) -> String {
    let scenario = with("v1.36.3", &json!([issuer(more)]));
    let error = check_authentication(&scenario.tenant, Some(STABLE_NAME)).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        assert!(text.contains(&inner.to_string()));
        source = inner.source();
    }
    text.truncate(400);
    text
}

#[test]
fn two_issuers() {
    check(
        "issuers",
        &with(
            "v1.36.3",
            &json!([
                issuer(&json!({
                    "claimValidationRules": [{ "expression": "claims.hd == 'example.com'", "message": "not ours" }],
                    "claimMappings": { "groups": { "claim": "groups", "prefix": "sso:" } },
                    "userValidationRules": [{ "expression": "user.groups.size() < 100" }],
                })),
                issuer(&json!({ "issuer": { "url": "https://other.example.com" } })),
            ]),
        ),
    );
}

#[test]
fn no_issuer_makes_platform_identities_whatever_its_rules_are() {
    let own = "user.groups.all(group, !group.startsWith('system:'))";
    let rules =
        json!([{ "expression": own, "message": "mine" }, { "expression": "user.uid != ''" }]);
    for version in ["v1.33.13", "v1.34.4", "v1.36.3"] {
        let scenario = with(
            version,
            &json!([issuer(&json!({ "userValidationRules": rules }))]),
        );
        let built = configuration(&scenario);
        let built = built["jwt"][0]["userValidationRules"].as_array().unwrap();
        let expressions: Vec<_> = built
            .iter()
            .map(|rule| rule["expression"].as_str().unwrap())
            .collect();
        assert_eq!(
            expressions,
            [
                "user.uid != ''",
                "!user.username.startsWith('system:')",
                own
            ]
        );
    }
}

#[test]
fn the_oldest_release_reads_another_version() {
    let version = |release| configuration(&with(release, &json!([])))["apiVersion"].clone();
    assert_eq!(version("v1.33.13"), "apiserver.config.k8s.io/v1beta1");
    assert_eq!(version("v1.34.4"), "apiserver.config.k8s.io/v1");
}

/// Names of issuers are looked up by the API server itself.
#[test]
fn the_cluster_dns_is_open_only_to_a_tenant_with_issuers() {
    let policy =
        |jwt: Value| serde_json::to_string(&with("v1.36.3", &jwt).guards().network_policy).unwrap();
    assert!(!policy(json!([])).contains("kube-dns"));
    assert!(policy(json!([issuer(&json!({}))])).contains("kube-dns"));
}

#[test]
fn what_an_api_server_compiles_is_accepted() {
    let authority = Authority::generate("idp", Duration::days(1), now()).unwrap();
    let accepted = issuer(&json!({
        "issuer": { "certificateAuthority": authority.certificate().repeat(2) },
        "claimValidationRules": [
            { "expression": "claims.email_verified == true" },
            { "expression": "has(claims.hd) && claims.hd.endsWith('.example.com')" },
            { "expression": "claims.?team.orValue('') in ['a', 'b']" },
            { "expression": "claims.roles.exists(role, role == 'admin' && sets.contains(['admin'], [role]))" },
            { "claim": "hd", "requiredValue": "x" },
        ],
        "claimMappings": {
            "username": { "claim": null, "prefix": null, "expression": "claims.email" },
            "groups": { "expression": "claims.roles.split(',').map(role, 'sso:' + role)" },
            "uid": { "expression": "has(claims.oid) ? claims.oid : claims.sub" },
            "extra": [{ "key": "example.com/a", "valueExpression": "claims['a']" }],
        },
        "userValidationRules": [{ "expression": "user.extra.all(key, key.startsWith('example.com/'))" }],
    }));
    let scenario = with("v1.36.3", &json!([accepted]));
    check_authentication(&scenario.tenant, None).unwrap();
}

#[test]
fn what_an_api_server_does_not_start_by_is_refused_with_the_place() {
    let rule = |text: &str| refused(&json!({ "claimValidationRules": [{ "expression": text }] }));
    let user = |text: &str| refused(&json!({ "userValidationRules": [{ "expression": text }] }));
    let name = |text: &str| {
        let name = json!({ "claim": null, "prefix": null, "expression": text });
        refused(&json!({ "claimMappings": { "username": name } }))
    };
    for (said, what) in [
        (rule("claims.a =="), "is no CEL"),
        (rule("user.username == 'a'"), "nothing called user"),
        (rule("claims.a.all(x, y == x)"), "nothing called y"),
        (rule("claims.verified"), "must come to true or false"),
        (rule("'a'"), "must come to true or false"),
        (rule("shell(claims.a) == 1"), "the function shell"),
        (user("user.name == 'a'"), "nothing called user.name"),
        (user("claims.a == 'a'"), "nothing called claims"),
        (name("claims.a == 'a'"), "a text or a list of texts"),
        (name("1"), "a text or a list of texts"),
        (
            name("claims.email"),
            "claims.email_verified must be asked for",
        ),
        (
            refused(&json!({ "issuer": { "certificateAuthority": "no" } })),
            "no PEM certificate",
        ),
        (
            refused(
                &json!({ "issuer": { "url": "https://kubernetes.default.svc.cluster.local" } }),
            ),
            "issues this cluster's own tokens",
        ),
        (
            refused(&json!({ "claimValidationRules": [{ "claim": "a" }, { "claim": "a" }] })),
            "says the same twice",
        ),
        (
            refused(&json!({ "userValidationRules": [
                { "expression": "user.uid != ''" }, { "expression": "user.uid != ''" } ] })),
            "says the same twice",
        ),
    ] {
        assert!(
            said.starts_with("spec.kubernetes.authentication.jwt[0]"),
            "{said}"
        );
        assert!(said.contains(what), "{said}");
    }
}
