use super::*;

fn on(value: &str) -> Option<bool> {
    setting(value)
}

/// As `k8s.io/component-base` reads a flag: the last of two settings counts, and the name may say whose gate it is.
#[test]
fn a_flag_says_what_components_read_in_it() {
    assert_eq!(on("A=true,B=false"), None);
    assert_eq!(on(&format!("A=false, {GATE} = true ,B=false")), Some(true));
    assert_eq!(on(&format!("kube:{GATE}=1")), Some(true));
    assert_eq!(on(&format!("{GATE}=true,{GATE}=false")), Some(false));
    assert_eq!(on(&format!("Other{GATE}=true")), None);
}

/// An API server does not start with an expression of more than 100,000 characters, and the nodes of management may be anywhere.
#[test]
fn any_number_of_networks_fits() {
    let addresses = (0..5_000_u128).map(|n| std::net::Ipv6Addr::from(u128::MAX / 3 - 2 * n));
    let closed: BTreeSet<IpNet> = addresses
        .map(|ip| IpNet::new(ip.into(), 128).unwrap())
        .collect();
    let variables = variables(&closed);
    let longest = variables
        .iter()
        .map(|variable| variable.expression.len())
        .max();
    assert!((50_000..100_000).contains(&longest.unwrap()), "{longest:?}");
    let refused = &variables.last().unwrap().expression;
    for network in &closed {
        let mut lists = variables
            .iter()
            .filter(|variable| variable.expression.contains(&format!("'{network}'")));
        let list = lists.next().unwrap();
        assert!(refused.contains(&format!("variables.{}.exists", list.name)));
        assert!(lists.next().is_none());
    }
}

#[test]
fn networks_that_cel_does_not_read_are_left_out() {
    let closed: BTreeSet<IpNet> = ["10.0.0.0/8", "::ffff:10.0.0.0/104", "fd00::/8"]
        .map(|network| network.parse().unwrap())
        .into();
    let lists = networks(&closed);
    assert_eq!(
        lists,
        [(
            "closed0".to_owned(),
            "['10.0.0.0/8', 'fd00::/8']".to_owned()
        )]
    );
}
