//! What a machine that joins does, without a machine.

use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use stoker_api::v1alpha1::JoinToken;
use stoker_lab::bare::BareApiServer;
use stoker_pki::JoinCredential;

use super::bare::{Bare, until};

/// A request for a certificate, always of the same key.
pub(crate) struct Asked {
    pub(crate) signer: &'static str,
    pub(crate) common_name: String,
    pub(crate) organization: &'static str,
    pub(crate) hosts: &'static [&'static str],
    pub(crate) usages: &'static [&'static str],
    pub(crate) key: KeyPair,
}

impl Asked {
    /// As a kubelet asks.
    pub(crate) fn of(node: &str) -> Self {
        Self {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            common_name: format!("system:node:{node}"),
            organization: "system:nodes",
            hosts: &[],
            usages: &["digital signature", "client auth"],
            key: KeyPair::generate().unwrap(),
        }
    }

    fn pem(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, self.organization);
        subject.push(DnType::CommonName, &*self.common_name);
        let name = |host: &&str| match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*host).try_into().unwrap()),
        };
        params.subject_alt_names = self.hosts.iter().map(name).collect();
        let request = params.serialize_request(&self.key).unwrap();
        request.pem().unwrap().into_bytes()
    }

    pub(crate) async fn post(&self, client: &Client) -> Result<String, kube::Error> {
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "generateName": "csr-" },
            "spec": {
                "signerName": self.signer, "request": ByteString(self.pem()), "usages": self.usages,
            },
        });
        let object = serde_json::from_value(object).unwrap();
        let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
        let made = requests.create(&PostParams::default(), &object).await?;
        Ok(made.name_any())
    }
}

/// A client that shows a bearer token to that API server.
pub(crate) async fn bearer(server: &BareApiServer, token: &str) -> Client {
    let mut parsed = Kubeconfig::from_yaml(server.kubeconfig()).unwrap();
    let info = json!({ "token": token });
    parsed.auth_infos[0].auth_info = Some(serde_json::from_value(info).unwrap());
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(parsed, &options).await;
    let mut config = config.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Whether that API server knows the token.
pub(crate) async fn authenticates(server: &BareApiServer, credential: &JoinCredential) -> bool {
    let client = bearer(server, &credential.token.text()).await;
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
    });
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes());
    match client.request::<Value>(request.unwrap()).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 401 => false,
        Err(error) => panic!("{error}"),
    }
}

/// Makes a token for the tenant `one`.
pub(crate) async fn make(bare: &Bare, name: &str, spec: Value) {
    let mut object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "JoinToken",
        "metadata": { "name": name }, "spec": { "tenantControlPlane": "one" },
    });
    let spec = spec.as_object().unwrap().clone();
    object["spec"].as_object_mut().unwrap().extend(spec);
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    let params = PatchParams::apply("test");
    tokens
        .patch(name, &params, &Patch::Apply(object))
        .await
        .unwrap();
}

/// Waits until the token is ready, or not ready, for this reason.
pub(crate) async fn condition(bare: &Bare, name: &str, reason: &str) {
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    until(&format!("{name} is {reason}"), async || {
        let token = tokens.get(name).await.unwrap();
        let status = token.status.unwrap_or_default();
        status.conditions.iter().any(|found| {
            let ready = if reason == "Available" {
                "True"
            } else {
                "False"
            };
            found.type_ == "Ready" && found.reason == reason && found.status == ready
        })
    })
    .await;
}

/// What is to be typed on a machine, once it is there.
pub(crate) async fn credential(bare: &Bare, name: &str) -> JoinCredential {
    condition(bare, name, "Available").await;
    let secret = bare.secrets("a").get(&format!("{name}-join-token")).await;
    let data = secret.unwrap().data.unwrap();
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let credential = JoinCredential::parse(&text("token")).unwrap();
    assert!(text("kubeadm").contains(&credential.token.text()));
    assert!(text("join").ends_with(&text("token")));
    credential
}

/// How many have joined by a token, and which.
pub(crate) async fn joined(bare: &Bare, name: &str) -> (i64, Vec<String>) {
    let tokens: Api<JoinToken> = Api::namespaced(bare.client.clone(), "a");
    let status = tokens.get(name).await.unwrap().status.unwrap();
    let nodes = status.nodes.into_iter().map(|node| node.name);
    (status.used, nodes.collect())
}

/// The answer to a request, once there is one: its type and message.
pub(crate) async fn answer(inside: &Client, name: &str) -> (String, String) {
    let requests: Api<CertificateSigningRequest> = Api::all(inside.clone());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        let request = requests.get(name).await.unwrap();
        let conditions = request.status.and_then(|status| status.conditions);
        if let Some(found) = conditions.into_iter().flatten().next() {
            return (found.type_, found.message.unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} was not answered");
}

/// A Node as a kubelet makes it that joins.
pub(crate) async fn node(inside: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(inside.clone());
    let object = json!({
        "metadata": { "name": name },
        "spec": { "taints": [{ "key": "stoker.dev/joining", "effect": "NoSchedule" }] },
    });
    let object = serde_json::from_value(object).unwrap();
    nodes.create(&PostParams::default(), &object).await.unwrap();
}
