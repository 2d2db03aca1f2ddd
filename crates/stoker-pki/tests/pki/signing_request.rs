use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, SanType,
};
use stoker_pki::{Error, SigningRequest};

fn params(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params
        .distinguished_name
        .push(DnType::CommonName, "system:node:w1");
    params.subject_alt_names = names.to_vec();
    params
}

fn pem(params: &CertificateParams) -> String {
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn read(params: &CertificateParams) -> Result<SigningRequest, Error> {
    SigningRequest::from_pem(pem(params).as_bytes())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn what_a_kubelet_asks_for_is_read_back() {
    let names = [
        dns("w1"),
        SanType::IpAddress("10.0.0.7".parse().unwrap()),
        SanType::IpAddress("::ffff:10.0.0.8".parse().unwrap()),
        SanType::IpAddress("fd00::7".parse().unwrap()),
    ];
    let read = read(&params(&names)).unwrap();
    assert!(read.key_hash.starts_with("sha256:"));
    let addresses = ["10.0.0.7", "10.0.0.8", "fd00::7"].map(|text| text.parse().unwrap());
    assert_eq!(
        read,
        SigningRequest {
            common_name: "system:node:w1".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            dns_names: vec!["w1".to_owned()],
            ip_addresses: addresses.to_vec(),
            key_hash: read.key_hash.clone(),
        }
    );
}

#[test]
fn what_no_server_asks_for_is_refused() {
    let refused = |params: &CertificateParams, says: &str| match read(params) {
        Err(Error::ReadSigningRequest(why)) => assert!(why.contains(says), "{why}"),
        other => panic!("{other:?}"),
    };
    let mail = SanType::Rfc822Name("root@w1".try_into().unwrap());
    refused(&params(&[mail]), "neither a DNS name nor an address");
    let uri = SanType::URI("spiffe://w1".try_into().unwrap());
    refused(&params(&[uri]), "neither a DNS name nor an address");
    let mut authority = params(&[dns("w1")]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    refused(&authority, "an authority");
    let mut subject = params(&[]);
    subject
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "more");
    refused(&subject, "beside common name");
    let mut nameless = params(&[]);
    nameless.distinguished_name = DistinguishedName::new();
    refused(&nameless, "exactly one common name");
}

#[test]
fn a_text_that_two_could_read_differently_is_refused() {
    let one = pem(&params(&[dns("w1")]));
    for text in [
        format!("{one}{one}"),
        format!("# see below\n{one}"),
        one.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        String::new(),
    ] {
        let read = SigningRequest::from_pem(text.as_bytes());
        assert!(matches!(read, Err(Error::NotPem(_))), "{text}");
    }
}
