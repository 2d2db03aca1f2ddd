use std::net::IpAddr;

use proptest::prelude::*;
use stoker_pki::{
    Authority, LeafRequest, LeafState, LeafUsage, MINIMUM_LIFETIME, ReissueReason, leaf_state,
};
use time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{YEAR, der, now};

fn requests() -> impl Strategy<Value = LeafRequest> {
    let shortest = MINIMUM_LIFETIME.whole_milliseconds();
    let longest = Duration::days(7300).whole_milliseconds();
    (
        "[a-z:-]{1,40}",
        proptest::collection::vec("[a-z:-]{1,40}", 0..4),
        prop_oneof![
            Just(LeafUsage::Server),
            Just(LeafUsage::Client),
            Just(LeafUsage::ServerAndClient)
        ],
        proptest::collection::vec(
            "(\\*\\.)?[a-zA-Z][a-z0-9]{0,9}(\\.[a-z][a-z0-9]{0,9}){0,3}",
            0..5,
        ),
        proptest::collection::vec(any::<IpAddr>(), 0..5),
        shortest..longest,
    )
        .prop_map(
            |(common_name, organizations, usage, dns_names, ip_addresses, lifetime)| LeafRequest {
                common_name,
                organizations,
                usage,
                dns_names,
                ip_addresses,
                lifetime: milliseconds(lifetime),
            },
        )
}

fn milliseconds(count: i128) -> Duration {
    Duration::milliseconds(i64::try_from(count).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever an authority issues, even in its last second.
    #[test]
    fn any_leaf_is_valid_when_issued_and_never_outlives_its_authority(
        request in requests(),
        authority_days in 1_i64..7300,
        age in 0.0_f64..1.0,
    ) {
        let authority =
            Authority::generate("ca", Duration::days(authority_days), now()).unwrap();
        let at = now() + Duration::days(authority_days) * age;
        prop_assume!(at < authority.not_after());
        let leaf = authority.issue(&request, at).unwrap();
        let state = leaf_state(&leaf.certificate, leaf.key.as_pem(), &request, &authority, at);
        let LeafState::Valid { renew_at } = state else {
            return Err(TestCaseError::fail(format!("{state:?}")));
        };
        prop_assert!(renew_at > at);

        let der = der(&leaf.certificate);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let end = certificate.validity().not_after.to_datetime();
        prop_assert!(end <= authority.not_after());
        prop_assert!(end <= at + request.lifetime);
    }

    /// Rotation is monotone: valid, then to be renewed for ever after.
    #[test]
    fn once_a_leaf_is_to_be_renewed_it_stays_so(
        request in requests(),
        authority_days in 1_i64..7300,
        instants in proptest::collection::vec(0_i128..Duration::days(9000).whole_milliseconds(), 2..40),
    ) {
        let authority =
            Authority::generate("ca", Duration::days(authority_days), now()).unwrap();
        let leaf = authority.issue(&request, now()).unwrap();
        let judge =
            |at| leaf_state(&leaf.certificate, leaf.key.as_pem(), &request, &authority, at);
        let LeafState::Valid { renew_at: promised } = judge(now()) else {
            return Err(TestCaseError::fail("not valid at issue"));
        };
        prop_assert_eq!(judge(promised), LeafState::Reissue(ReissueReason::Expiring));

        let mut instants = instants;
        instants.sort_unstable();
        let mut expiring = false;
        for instant in instants {
            let at = now() + milliseconds(instant);
            match judge(at) {
                LeafState::Valid { renew_at } => {
                    prop_assert!(!expiring, "valid again at {}", at);
                    prop_assert_eq!(renew_at, promised);
                    prop_assert!(at < promised);
                }
                LeafState::Reissue(reason) => {
                    prop_assert_eq!(reason, ReissueReason::Expiring);
                    prop_assert!(at >= promised);
                    expiring = true;
                }
            }
        }
    }

    /// Text from a Secret that anybody may have edited.
    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC{0,400}", body in "[A-Za-z0-9+/=\n]{0,400}") {
        let authority = Authority::generate("ca", YEAR, now()).unwrap();
        for label in ["CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PUBLIC KEY"] {
            let pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n{text}");
            prop_assert!(Authority::from_pem(&pem, &pem).is_err());
            prop_assert!(stoker_pki::ServiceAccountKey::from_pem(&pem, &pem).is_err());
            prop_assert!(stoker_pki::parse_kubeconfig(&pem).is_err());
            prop_assert!(stoker_pki::ca_hash(&pem).is_err());
            let request = crate::server_request();
            let state = leaf_state(&pem, authority.key().as_pem(), &request, &authority, now());
            prop_assert_eq!(state, LeafState::Reissue(ReissueReason::Unreadable));
        }
        prop_assert!(stoker_pki::parse_kubeconfig(&text).is_err());
    }
}
