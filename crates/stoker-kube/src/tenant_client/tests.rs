use super::*;
use crate::readiness::ready;
use std::time::Instant;
use stoker_pki::{Authority, LeafRequest, LeafUsage};

fn endpoint(address: SocketAddr) -> TenantEndpoint {
    let now = time::OffsetDateTime::now_utc();
    let authority = Authority::generate("tests", time::Duration::days(1), now).unwrap();
    let request = LeafRequest {
        common_name: "tester".to_owned(),
        organizations: Vec::new(),
        usage: LeafUsage::Client,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: time::Duration::hours(1),
    };
    let leaf = authority.issue(&request, now).unwrap();
    TenantEndpoint {
        address,
        server_name: "tenant.example.com".to_owned(),
        certificate_authority: authority.certificate().to_owned(),
        client_certificate: leaf.certificate.clone(),
        client_key: leaf.key.as_pem().to_owned().into(),
    }
}

fn client(endpoint: &TenantEndpoint) -> Result<Client, Error> {
    tenant_client(endpoint, Arc::new(|_, _, _| {}))
}

#[tokio::test]
async fn what_is_unusable_is_named() {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let broken = |change: fn(&mut TenantEndpoint)| {
        let mut endpoint = endpoint(address);
        change(&mut endpoint);
        let error = client(&endpoint).err().unwrap();
        assert_eq!(error.category(), "InvalidCredentials");
        error.to_string()
    };
    let text = |what: &str| format!("could not make a client for the tenant: {what} is unusable");
    assert!(client(&endpoint(address)).is_ok());
    assert_eq!(
        broken(|e| e.server_name = "a b".into()),
        text("server name")
    );
    assert_eq!(
        broken(|e| e.certificate_authority.clear()),
        text("CA certificate")
    );
    assert_eq!(
        broken(|e| e.client_certificate = "x".into()),
        text("client certificate")
    );
    assert_eq!(
        broken(|e| e.client_key = String::new().into()),
        text("client key")
    );
    let another = endpoint(address).client_key;
    let mut mixed = endpoint(address);
    mixed.client_key = another;
    assert!(client(&mixed).is_err(), "a key of another certificate");
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_costs_two_seconds() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let client = client(&endpoint(listener.local_addr().unwrap())).unwrap();
    let begun = Instant::now();
    let error = ready(&client).await.unwrap_err();
    assert_eq!(error.category(), "Timeout");
    let waited = begun.elapsed();
    assert!(
        waited >= CONNECT_TIMEOUT && waited < CONNECT_TIMEOUT * 2,
        "{waited:?}"
    );
}

#[tokio::test]
async fn nobody_at_the_address_is_told_from_an_error() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ready(&client(&endpoint(address)).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.category(), "ConnectionRefused");
}
