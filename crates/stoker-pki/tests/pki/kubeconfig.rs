use std::path::Path;

use stoker_pki::{
    Error, KeyedCertificate, KubeconfigCredentials, KubeconfigRequest, LeafState, PrivateKey,
    kubeconfig, leaf_state, parse_kubeconfig,
};

use crate::{authority, client_request, fixture, now};

fn request(credentials: KubeconfigCredentials) -> KubeconfigRequest {
    KubeconfigRequest {
        cluster: "team-a".into(),
        server: "https://10.0.0.7:6443".into(),
        tls_server_name: None,
        authority: fixture("p256.crt"),
        user: "kubernetes-admin".into(),
        credentials,
    }
}

fn inline() -> KubeconfigCredentials {
    KubeconfigCredentials::Inline(KeyedCertificate {
        certificate: fixture("p256.crt"),
        key: PrivateKey::from_pem(&fixture("p256-pkcs8.key")).unwrap(),
    })
}

fn files() -> KubeconfigCredentials {
    KubeconfigCredentials::Files {
        certificate: "/etc/kubernetes/client/tls.crt".into(),
        key: "/etc/kubernetes/client/tls.key".into(),
    }
}

/// `UPDATE_GOLDEN=1` accepts what is rendered.
fn assert_golden(name: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/pki/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    assert_eq!(
        rendered,
        std::fs::read_to_string(&path).unwrap(),
        "{}",
        path.display()
    );
}

#[test]
fn a_kubeconfig_with_inline_credentials_is_rendered() {
    assert_golden("inline.yaml", &kubeconfig(&request(inline())));
}

#[test]
fn a_kubeconfig_with_files_and_a_server_name_is_rendered() {
    let mut request = request(files());
    request.tls_server_name = Some("kubernetes.default.svc".into());
    assert_golden("files.yaml", &kubeconfig(&request));
}

#[test]
fn what_is_rendered_is_read_back() {
    let mut request = request(inline());
    for name in [None, Some("kubernetes.default.svc".to_owned())] {
        request.tls_server_name = name;
        let facts = parse_kubeconfig(&kubeconfig(&request)).unwrap();
        assert_eq!(facts.cluster, request.cluster);
        assert_eq!(facts.server, request.server);
        assert_eq!(facts.tls_server_name, request.tls_server_name);
        assert_eq!(facts.authority, request.authority);
        assert_eq!(facts.user, request.user);
        let leaf = KeyedCertificate {
            certificate: facts.certificate,
            key: facts.key,
        };
        assert_eq!(KubeconfigCredentials::Inline(leaf), request.credentials);
    }
}

#[test]
fn names_with_yaml_in_them_stay_names() {
    let mut request = request(inline());
    for name in [
        "yes", "1.0", "a: b", "# c", "\"", "\\", "- x", "a\nb: c", "é", "", "*a", "null",
    ] {
        request.cluster = name.into();
        request.user = name.into();
        let facts = parse_kubeconfig(&kubeconfig(&request)).unwrap();
        assert_eq!((facts.cluster.as_str(), facts.user.as_str()), (name, name));
    }
}

#[test]
fn the_leaf_of_an_existing_kubeconfig_can_be_judged() {
    let authority = authority();
    let leaf = authority.issue(&client_request(), now()).unwrap();
    let text = kubeconfig(&request(KubeconfigCredentials::Inline(leaf)));
    let facts = parse_kubeconfig(&text).unwrap();
    let state = leaf_state(
        &facts.certificate,
        facts.key.as_pem(),
        &client_request(),
        &authority,
        now(),
    );
    assert!(matches!(state, LeafState::Valid { .. }), "{state:?}");
}

#[test]
fn the_current_context_decides_among_several() {
    let text = kubeconfig(&request(inline()));
    let other = "contexts:\n- name: other\n  context: {cluster: none, user: none}\n";
    let several = text.replace("contexts:\n", other);
    assert_eq!(parse_kubeconfig(&several).unwrap().cluster, "team-a");
    let elsewhere = several.replace(
        "current-context: \"kubernetes-admin@team-a\"",
        "current-context: other",
    );
    assert!(matches!(
        parse_kubeconfig(&elsewhere),
        Err(Error::KubeconfigLacks("cluster"))
    ));
}

#[test]
fn what_kubeadm_writes_is_read() {
    let text = fixture("kubeadm.conf");
    let facts = parse_kubeconfig(&text).unwrap();
    assert_eq!(facts.server, "https://10.0.0.7:6443");
    assert_eq!(
        (facts.cluster.as_str(), facts.user.as_str()),
        ("kubernetes", "kubernetes-admin")
    );
    assert_eq!(facts.authority, fixture("p256.crt"));
    assert_eq!(facts.key.as_pem(), fixture("p256-pkcs8.key"));
}

#[test]
fn what_is_missing_is_named() {
    let text = kubeconfig(&request(inline()));
    let without = |field: &str| {
        let kept: Vec<_> = text.lines().filter(|line| !line.contains(field)).collect();
        match parse_kubeconfig(&kept.join("\n")) {
            Err(Error::KubeconfigLacks(lacks)) => lacks,
            other => panic!("{field}: {other:?}"),
        }
    };
    for field in [
        "server",
        "certificate-authority-data",
        "client-certificate-data",
        "client-key-data",
    ] {
        assert_eq!(without(&format!("{field}:")), field);
    }
    assert_eq!(without("current-context"), "entry in contexts");
    let with_files = kubeconfig(&request(files()));
    assert!(matches!(
        parse_kubeconfig(&with_files),
        Err(Error::KubeconfigLacks(_))
    ));
}

#[test]
fn an_error_about_a_kubeconfig_never_shows_its_key() {
    let text = kubeconfig(&request(inline()));
    let secret = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("client-key-data: "))
        .unwrap();
    let secret = secret.trim_matches('"');
    for broken in [
        text.replace(
            "client-key-data: \"",
            "client-key-data: \""[..17].trim_end(),
        ),
        text.replace("client-key-data: \"", "client-key-data: [\""),
        text.replace("client-key-data: ", "client-key-data: \t: "),
        text.replace("    client-key-data", "   client-key-data"),
        text.replace(secret, &format!("!{secret}")),
        text.replace(secret, &secret[4..]),
    ] {
        assert_ne!(broken, text);
        let error = parse_kubeconfig(&broken).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(&secret[8..40]), "{shown}");
    }
}
