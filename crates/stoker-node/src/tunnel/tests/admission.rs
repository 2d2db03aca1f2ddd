use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use stoker_pki::{Authority, KeyedCertificate, LeafUsage};
use stoker_tunnel::wire::ALPN;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::super::Egress;
use super::ground::{DEADLINE, Tenant, agent, ask, echo, leaf, link, open, opened, refused};

/// Whether the near end speaks to whoever shows this certificate.
async fn is_let_in(tenant: &Tenant, port: u16, shown: Option<&KeyedCertificate>) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(tenant.authority.certificate().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let chain = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(shown.key.as_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let Ok(mut stream) = TlsConnector::from(Arc::new(tls))
        .connect(name, socket)
        .await
    else {
        return false;
    };
    // The near end is the HTTP/2 client, and begins.
    let mut preface = [0; 24];
    matches!(
        timeout(DEADLINE, stream.read_exact(&mut preface)).await,
        Ok(Ok(24))
    )
}

#[tokio::test]
async fn nobody_but_a_node_of_the_tenant_is_let_in() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let now = OffsetDateTime::now_utc();
    let day = time::Duration::days(1);
    let foreign = Authority::generate("kubernetes", day * 9, now).unwrap();
    let node = leaf("system:node:a", "system:nodes", LeafUsage::Client, &[]);
    let issue = |authority: &Authority, request, at| authority.issue(request, at).unwrap();

    let right = issue(&tenant.authority, &node, now);
    assert!(is_let_in(&tenant, near.port, Some(&right)).await);

    assert!(!is_let_in(&tenant, near.port, None).await, "no certificate");
    let admin = leaf("kubernetes-admin", "system:masters", LeafUsage::Client, &[]);
    let pretender = leaf("system:node:a", "system:masters", LeafUsage::Client, &[]);
    let nameless = leaf("kubernetes-admin", "system:nodes", LeafUsage::Client, &[]);
    let serving = leaf("system:node:a", "system:nodes", LeafUsage::Server, &[]);
    for (what, shown) in [
        ("another tenant's node", issue(&foreign, &node, now)),
        (
            "an expired certificate",
            issue(&tenant.authority, &node, now - day),
        ),
        (
            "one that is not valid yet",
            issue(&tenant.authority, &node, now + day),
        ),
        ("an administrator", issue(&tenant.authority, &admin, now)),
        (
            "no member of the nodes' group",
            issue(&tenant.authority, &pretender, now),
        ),
        (
            "a member that is no node",
            issue(&tenant.authority, &nameless, now),
        ),
        (
            "a serving certificate",
            issue(&tenant.authority, &serving, now),
        ),
    ] {
        assert!(!is_let_in(&tenant, near.port, Some(&shown)).await, "{what}");
    }
    let refusal = open(&near.socket, "10.0.0.1:10250").await.unwrap_err();
    assert!(refusal.contains("no tunnel agent"), "{refusal}");
}

#[tokio::test]
async fn an_agent_does_not_speak_to_a_server_of_another_authority() {
    let (tenant, other) = (Tenant::new(), Tenant::new());
    let near = tenant.near("near").await;
    let mut files = tenant.node("a", &[], OffsetDateTime::now_utc());
    files.server_ca = other.path("ca.crt");
    let _agent = agent(files, near.port, Egress::unlimited());
    sleep(Duration::from_secs(1)).await;
    let refusal = open(&near.socket, "127.0.0.1:1").await.unwrap_err();
    assert!(refusal.contains("no tunnel agent"), "{refusal}");
}

#[tokio::test]
async fn a_nodes_address_is_asked_of_that_nodes_agent_alone() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let _agents = [
        tenant.refusing("a", &["10.0.0.1", "fd00::1"], near.port),
        tenant.refusing("b", &["10.0.0.2"], near.port),
        tenant.refusing("c", &[], near.port),
    ];
    for (target, node) in [
        ("10.0.0.1:10250", "a"),
        ("[fd00::1]:10250", "a"),
        ("[::ffff:10.0.0.1]:22", "a"),
        ("10.0.0.2:10250", "b"),
    ] {
        let by = format!("403 node {node}: ");
        refused(&near.socket, target, &by).await;
        for _ in 0..20 {
            let refusal = open(&near.socket, target).await.unwrap_err();
            assert!(refusal.contains(&by), "{target}: {refusal}");
        }
    }
}

#[tokio::test]
async fn a_node_cannot_hand_over_another_nodes_serving_certificate() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let _owner = tenant.refusing("a", &["10.0.0.1"], near.port);
    refused(&near.socket, "10.0.0.1:10250", "403 node a: ").await;

    let now = OffsetDateTime::now_utc() + time::Duration::minutes(2);
    let mut thief = tenant.node("b", &[], OffsetDateTime::now_utc());
    let stolen = leaf(
        "system:node:a",
        "system:nodes",
        LeafUsage::Server,
        &["10.0.0.1"],
    );
    tenant.write_pair("stolen.pem", &stolen, now);
    thief.node_certificate = tenant.path("stolen.pem");
    // Of his own making, for his own name.
    let impostor = Authority::generate("kubernetes", time::Duration::days(9), now).unwrap();
    let forged = leaf(
        "system:node:c",
        "system:nodes",
        LeafUsage::Server,
        &["10.0.0.1"],
    );
    let forged = impostor.issue(&forged, now).unwrap();
    tenant.write("forged.pem", &forged.certificate);
    let mut forging = tenant.node("c", &[], OffsetDateTime::now_utc());
    forging.node_certificate = tenant.path("forged.pem");
    let nothing = || Egress::new(vec!["192.0.2.0/32".parse().unwrap()], vec![]);
    let _thieves = [
        agent(thief, near.port, nothing()),
        agent(forging, near.port, nothing()),
    ];
    // Both are there, for what belongs to nobody.
    refused(&near.socket, "10.0.0.9:1", "403 node b: ").await;
    refused(&near.socket, "10.0.0.9:1", "403 node c: ").await;
    for _ in 0..50 {
        let refusal = open(&near.socket, "10.0.0.1:10250").await.unwrap_err();
        assert!(refusal.contains("403 node a: "), "{refusal}");
    }
}

#[tokio::test]
async fn an_agent_whose_authority_has_left_is_let_go() {
    let tenant = Tenant::new();
    let near = tenant.near("near").await;
    let _agent = tenant.agent("a", &[], near.port);
    let (address, _echo) = echo().await;
    let mut stream = opened(&near.socket, &address.to_string()).await;
    ask(&mut stream, "before").await.unwrap();
    let now = OffsetDateTime::now_utc();
    let next = Authority::generate("kubernetes", time::Duration::days(9), now).unwrap();
    tenant.write("ca.crt", next.certificate());
    refused(&near.socket, &address.to_string(), "503 no tunnel agent").await;
    let mut byte = [0];
    let ended = timeout(DEADLINE, stream.read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "open streams end too");
}

#[tokio::test]
async fn a_node_that_knows_the_old_authority_alone_comes_by_the_link_and_goes_on_with_the_new_one()
{
    let mut tenant = Tenant::new();
    let now = OffsetDateTime::now_utc();
    let next = Authority::generate("kubernetes", time::Duration::days(9), now).unwrap();
    let old = tenant.authority.certificate().to_owned();
    let both = [next.certificate(), &old].concat();
    let server = leaf("kube-apiserver", "none", LeafUsage::Server, &["127.0.0.1"]);
    let server = next.issue(&server, now).unwrap();
    let chain = [server.certificate, link(&next, &tenant.authority)].concat();
    tenant.write("server.crt", &chain);
    tenant.write("server.key", server.key.as_pem());
    tenant.write("ca.crt", &both);
    tenant.write("node-ca.crt", &old);
    let mut files = tenant.node("a", &["127.0.0.1"], now);
    files.server_ca = tenant.path("node-ca.crt");
    let near = tenant.near("near").await;
    let _agent = agent(files, near.port, Egress::unlimited());
    let (address, _echo) = echo().await;
    let mut before = opened(&near.socket, &address.to_string()).await;
    ask(&mut before, "by the link").await.unwrap();

    // As its agent and its kubelet do.
    tenant.write("node-ca.crt", &both);
    std::fs::remove_file(tenant.path("a-server.pem")).unwrap();
    tenant.authority = next;
    tenant.node("a", &["127.0.0.1"], now);
    // The old one leaves; what came by it is let go.
    tenant.write("ca.crt", tenant.authority.certificate());
    let mut byte = [0];
    let ended = timeout(DEADLINE, before.read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    let mut after = opened(&near.socket, &address.to_string()).await;
    ask(&mut after, "by the new one").await.unwrap();
}
