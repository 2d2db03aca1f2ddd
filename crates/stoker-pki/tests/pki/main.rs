//! Certificates are parsed back, used in real handshakes, and judged over time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy sees tests only in #[test] functions"
)]

mod authority;
mod handshake;
mod join;
mod keys;
mod kubeconfig;
mod properties;
mod rotation;
mod signing_request;

use std::path::Path;

use stoker_pki::{Authority, LeafRequest, LeafUsage};
use time::{Duration, OffsetDateTime};

const YEAR: Duration = Duration::days(365);

/// Inside the validity of every fixture.
fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn authority() -> Authority {
    Authority::generate("test-ca", YEAR * 10, now()).unwrap()
}

fn server_request() -> LeafRequest {
    LeafRequest {
        common_name: "kube-apiserver".into(),
        organizations: Vec::new(),
        usage: LeafUsage::Server,
        dns_names: vec!["kubernetes.default.svc".into(), "api.example.com".into()],
        ip_addresses: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        lifetime: YEAR,
    }
}

fn client_request() -> LeafRequest {
    LeafRequest {
        common_name: "kubernetes-admin".into(),
        organizations: vec!["kubeadm:cluster-admins".into()],
        usage: LeafUsage::Client,
        dns_names: vec![],
        ip_addresses: vec![],
        lifetime: YEAR,
    }
}

/// A file that `fixtures/generate.sh` made.
fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki/fixtures");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}
