//! What people ask of the API server beside who is let in and what is recorded: features, versions of the API, issuers of
//! tokens, size; with the operator's process and API servers that have every flag and file from it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail, and prints its figures"
)]

#[path = "operator_support/bare.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod bare;
#[path = "operator_support/bare_pod.rs"]
mod bare_pod;
#[path = "operator_support/pod.rs"]
#[expect(dead_code, reason = "not all of it is looked at here")]
mod pod;

use std::collections::BTreeSet;

use bare::{Bare, until};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use pod::{TenantPod, born, change, generation, template};
use serde_json::{Map, Value, json};
use stoker_api::runtime_config;
use stoker_lab::versions::{KubernetesVersion, default_kubernetes, oldest_kubernetes};

const FIRST: &str = "https://oidc.example.com/tenants/a";
const SECOND: &str = "https://oidc.example.com/tenants/b/";
const COMMON: &str = "https://kubernetes.default.svc.cluster.local";

async fn get(client: &Client, path: &str) -> String {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    client.request_text(request).await.unwrap()
}

async fn document(client: &Client, path: &str) -> Value {
    serde_json::from_str(&get(client, path).await).unwrap()
}

/// A token of the service account `default/agent` without audiences of its own, as pods have it.
async fn token(pod: &TenantPod) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(pod.inside.clone(), "default");
    let account: ServiceAccount =
        serde_json::from_value(json!({ "metadata": { "name": "agent" } })).unwrap();
    if accounts.get_opt("agent").await.unwrap().is_none() {
        accounts
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
    }
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [], "expirationSeconds": 3600 } }))
            .unwrap();
    let made = accounts
        .create_token_request("agent", &PostParams::default(), &request)
        .await;
    made.unwrap().status.unwrap().token
}

fn part(token: &str, place: usize) -> Value {
    let text = token.split('.').nth(place).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

/// Whether the API server believes the bearer to be that account.
async fn lets_in(pod: &TenantPod, token: &str) -> bool {
    let reviews: Api<SelfSubjectReview> = Api::all(pod.with_token(token));
    match reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
    {
        Ok(review) => {
            let user = review.status.unwrap().user_info.unwrap();
            assert_eq!(
                user.username.unwrap(),
                "system:serviceaccount:default:agent"
            );
            true
        }
        Err(kube::Error::Api(status)) if status.code == 401 => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// Changes the spec, and starts an API server as it is then.
async fn replaced(
    bare: &Bare,
    version: KubernetesVersion,
    kubernetes: Value,
    (second, name): (u8, &str),
) -> TenantPod {
    let before = generation(bare).await;
    change(bare, json!({ "kubernetes": kubernetes })).await;
    until("the pods are replaced", async || {
        generation(bare).await > before
    })
    .await;
    TenantPod::launch(bare, version, second, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_a_change_of_their_issuer_on_the_newest_release() {
    Box::pin(tokens_outlive_a_change_of_their_issuer(
        default_kubernetes(),
        160,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_a_change_of_their_issuer_on_the_oldest_release() {
    Box::pin(tokens_outlive_a_change_of_their_issuer(
        oldest_kubernetes(),
        164,
    ))
    .await;
}

async fn tokens_outlive_a_change_of_their_issuer(version: KubernetesVersion, address: u8) {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    born(&bare, version, json!({})).await;
    let pod = TenantPod::start(&bare, version, address).await;
    let of_ours = token(&pod).await;
    assert_eq!(part(&of_ours, 1)["iss"], COMMON);
    assert!(lets_in(&pod, &of_ours).await);

    let asked = json!({ "serviceAccountIssuers": [FIRST] });
    let pod = replaced(&bare, version, asked, (address + 1, "two-pod")).await;
    let of_first = token(&pod).await;
    assert_eq!(part(&of_first, 1)["iss"], FIRST);
    assert!(lets_in(&pod, &of_first).await && lets_in(&pod, &of_ours).await);
    discovered(
        &pod,
        &of_first,
        FIRST,
        "https://oidc.example.com/tenants/a/openid/v1/jwks",
    )
    .await;

    let asked = json!({ "serviceAccountIssuers": [SECOND, FIRST] });
    let pod = replaced(&bare, version, asked, (address + 2, "three-pod")).await;
    let of_second = token(&pod).await;
    assert_eq!(part(&of_second, 1)["iss"], SECOND);
    for token in [&of_ours, &of_first, &of_second] {
        assert!(lets_in(&pod, token).await);
    }
    discovered(
        &pod,
        &of_first,
        SECOND,
        "https://oidc.example.com/tenants/b/openid/v1/jwks",
    )
    .await;

    let asked = json!({ "serviceAccountIssuers": [SECOND] });
    let pod = replaced(&bare, version, asked, (address + 3, "four-pod")).await;
    assert!(lets_in(&pod, &of_second).await && lets_in(&pod, &of_ours).await);
    assert!(!lets_in(&pod, &of_first).await, "it is no issuer any more");
}

/// What a verifier finds: the issuer, where its keys are, and among them the one that signed.
async fn discovered(pod: &TenantPod, token: &str, issuer: &str, keys_uri: &str) {
    let found = document(&pod.inside, "/.well-known/openid-configuration").await;
    assert_eq!(
        (&found["issuer"], &found["jwks_uri"]),
        (&json!(issuer), &json!(keys_uri))
    );
    let keys = document(&pod.inside, "/openid/v1/jwks").await;
    let mut keys = keys["keys"].as_array().unwrap().iter();
    assert!(keys.any(|key| key["kid"] == part(token, 0)["kid"]));
    // The keys are public, but not for everybody.
    let anonymous = pod.with_token("none");
    let request = http::Request::get("/openid/v1/jwks")
        .body(Vec::new())
        .unwrap();
    assert!(anonymous.request_text(request).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_issues_tokens_under_the_tenants_stable_name() {
    let bare = Bare::start().await;
    let _operator = bare.operator_with(&["--base-domain=clusters.example.com"]);
    born(&bare, default_kubernetes(), json!({})).await;
    let status = bare.tenants("a").get("one").await.unwrap().status.unwrap();
    let id = status.storage.unwrap().setup.schema;
    let jwt = json!([{
        "issuer": { "url": format!("https://{id}.clusters.example.com"), "audiences": ["stoker"] },
        "claimMappings": { "username": { "claim": "sub", "prefix": "" } },
    }]);
    change(
        &bare,
        json!({ "kubernetes": { "authentication": { "jwt": jwt } } }),
    )
    .await;
    let said = bare
        .tenant_reason("a", "one", "Ready", "InvalidAuthentication")
        .await;
    assert!(said.contains("issues this cluster's own tokens"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_are_switched_on_the_newest_release() {
    Box::pin(features_are_switched(default_kubernetes(), 168)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn features_are_switched_on_the_oldest_release() {
    Box::pin(features_are_switched(oldest_kubernetes(), 170)).await;
}

async fn features_are_switched(version: KubernetesVersion, address: u8) {
    let bare = Bare::start().await;
    let _operator = bare.operator();
    let release: stoker_api::version::KubernetesVersion = version.version.parse().unwrap();
    let ours: BTreeSet<String> = runtime_config::of(release.minor)
        .map(str::to_owned)
        .collect();
    // An API server does not start with a version that it does not have.
    let mut versions: Map<String, Value> = ours
        .iter()
        .map(|name| (name.clone(), json!(true)))
        .collect();
    versions.insert("api/all".to_owned(), json!(true));
    let all = json!({
        "featureGates": { "WatchListClient": false, "ClusterTrustBundle": true },
        "runtimeConfig": versions,
    });
    born(
        &bare,
        version,
        json!({ "kubernetes": all, "controlPlane": { "size": "Small" } }),
    )
    .await;
    let pod = TenantPod::start(&bare, version, address).await;
    let metrics = get(&pod.inside, "/metrics").await;
    let gate = |name: &str| {
        let mut lines = metrics
            .lines()
            .filter(|line| line.starts_with("kubernetes_feature_enabled"));
        let line = lines
            .find(|line| line.contains(&format!("name=\"{name}\"")))
            .unwrap();
        line.ends_with(" 1")
    };
    assert!(gate("ClusterTrustBundle") && !gate("WatchListClient"));
    // Some are served under a gate of their own alone.
    let served = unstable(&pod).await;
    assert!(served.is_subset(&ours), "{served:?}");
    assert!(served.contains("certificates.k8s.io/v1beta1"), "{served:?}");

    // A gate that no component knows stays away from them, and what runs goes on.
    let before = template(&bare.client).await;
    change(
        &bare,
        json!({ "kubernetes": { "featureGates": { "MagicBeans": true } } }),
    )
    .await;
    let said = bare.tenant_reason("a", "one", "Ready", "InvalidSpec").await;
    assert!(said.contains("featureGates: MagicBeans"), "{said}");
    assert_eq!(template(&bare.client).await, before);
    let one = json!({
        "featureGates": { "MagicBeans": null },
        "runtimeConfig": { "api/beta": true, "storage.k8s.io/v1beta1": false },
    });
    // A merge patch leaves what it does not name.
    change(&bare, json!({ "kubernetes": { "runtimeConfig": null } })).await;
    let pod = replaced(&bare, version, one, (address + 1, "two-pod")).await;
    let served = unstable(&pod).await;
    assert!(served.contains("resource.k8s.io/v1beta1"), "{served:?}");
    let unasked = |name: &&String| name.contains("alpha") || *name == "storage.k8s.io/v1beta1";
    assert_eq!(served.iter().find(unasked), None);
}

/// The alpha and beta versions that are served.
async fn unstable(pod: &TenantPod) -> BTreeSet<String> {
    let groups = document(&pod.inside, "/apis").await;
    let groups = groups["groups"].as_array().unwrap().clone();
    let versions = groups
        .iter()
        .flat_map(|group| group["versions"].as_array().unwrap());
    let names = versions.map(|version| version["groupVersion"].as_str().unwrap().to_owned());
    names
        .filter(|name| name.contains("alpha") || name.contains("beta"))
        .collect()
}
