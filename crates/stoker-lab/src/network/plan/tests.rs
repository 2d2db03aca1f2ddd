use super::*;
use serde_json::{Value, json};

fn range() -> [AddressRange; 1] {
    ["192.0.2.10-192.0.2.12".parse().unwrap()]
}

fn address(last: u8) -> Vec<IpAddr> {
    vec![IpAddr::from([192, 0, 2, last])]
}

/// A Service named `name`, born in that second, of type `LoadBalancer` unless `spec` says otherwise.
fn service(name: &str, born: u8, spec: &Value, shown: &[&str]) -> Service {
    let mut whole = json!({ "type": "LoadBalancer" });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let ingress: Vec<Value> = shown.iter().map(|ip| json!({ "ip": ip })).collect();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "a",
            "name": name,
            "uid": format!("uid-{name}"),
            "creationTimestamp": format!("2026-01-01T00:00:{born:02}Z"),
        },
        "spec": whole,
        "status": { "loadBalancer": { "ingress": ingress } },
    }))
    .unwrap()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "a".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

fn planned(services: &[Service]) -> Plan {
    plan(services, &range(), &BTreeMap::new())
}

#[test]
fn the_oldest_service_gets_the_lowest_free_address() {
    let services = [
        service("young", 9, &json!({}), &[]),
        service("old", 1, &json!({}), &[]),
        service("held", 5, &json!({}), &["192.0.2.10"]),
    ];
    let plan = planned(&services);
    assert_eq!(plan.addresses[&key("held")], address(10));
    assert_eq!(plan.addresses[&key("old")], address(11));
    assert_eq!(plan.addresses[&key("young")], address(12));
    assert_eq!(
        plan.announce,
        [key("old"), key("young")],
        "the held one is written already"
    );
}

#[test]
fn an_address_written_but_not_seen_yet_is_kept() {
    let services = [
        service("a", 5, &json!({}), &[]),
        service("b", 1, &json!({}), &[]),
    ];
    let remembered = BTreeMap::from([(key("a"), address(10))]);
    let plan = plan(&services, &range(), &remembered);
    assert_eq!(plan.addresses[&key("a")], address(10));
    assert_eq!(
        plan.addresses[&key("b")],
        address(11),
        "older, but the address is taken"
    );
}

#[test]
fn services_of_others_are_left_alone() {
    let services = [
        service(
            "classed",
            1,
            &json!({ "loadBalancerClass": "example.com/x" }),
            &["192.0.2.10"],
        ),
        service("internal", 2, &json!({ "type": "ClusterIP" }), &[]),
        service(
            "foreign",
            3,
            &json!({ "type": "NodePort" }),
            &["203.0.113.1"],
        ),
        service("v6", 4, &json!({ "ipFamilies": ["IPv6"] }), &[]),
    ];
    assert_eq!(planned(&services), Plan::default());
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_gives_its_address_back() {
    let services = [
        service(
            "former",
            1,
            &json!({ "type": "ClusterIP" }),
            &["192.0.2.10"],
        ),
        service("next", 2, &json!({}), &[]),
    ];
    let plan = planned(&services);
    assert_eq!(plan.withdraw, [key("former")]);
    assert_eq!(plan.addresses[&key("next")], address(10));
}

#[test]
fn an_explicit_address_is_given_when_free_and_in_range() {
    let asks = |ip: &str| json!({ "loadBalancerIP": ip });
    let services = [
        service("first", 1, &json!({}), &[]),
        service("asks", 2, &asks("192.0.2.10"), &[]),
        service("late", 3, &asks("192.0.2.10"), &[]),
        service("outside", 4, &asks("203.0.113.7"), &[]),
    ];
    let plan = planned(&services);
    assert_eq!(plan.addresses[&key("asks")], address(10));
    assert_eq!(plan.addresses[&key("first")], address(11));
    assert!(plan.unmet[&key("late")].contains("belongs to a/asks"));
    assert!(plan.unmet[&key("outside")].contains("is outside 192.0.2.10-192.0.2.12"));
}

#[test]
fn an_explicit_address_named_later_replaces_the_former() {
    let services = [service(
        "a",
        1,
        &json!({ "loadBalancerIP": "192.0.2.12" }),
        &["192.0.2.10"],
    )];
    let plan = planned(&services);
    assert_eq!(plan.addresses[&key("a")], address(12));
    assert_eq!(plan.announce, [key("a")]);
}

#[test]
fn two_services_never_hold_one_address() {
    let services = [
        service("copy", 2, &json!({}), &["192.0.2.10"]),
        service("owner", 1, &json!({}), &["192.0.2.10"]),
    ];
    let plan = planned(&services);
    assert_eq!(plan.addresses[&key("owner")], address(10));
    assert_eq!(plan.addresses[&key("copy")], address(11));
    assert_eq!(plan.announce, [key("copy")]);
}

#[test]
fn a_full_range_is_reported() {
    let services: Vec<Service> = (0..4)
        .map(|born| service(&format!("s{born}"), born, &json!({}), &[]))
        .collect();
    let plan = planned(&services);
    assert_eq!(plan.addresses.len(), 3);
    assert!(plan.unmet[&key("s3")].contains("every address of 192.0.2.10-192.0.2.12 is in use"));
}

#[test]
fn a_service_of_both_families_gets_an_address_of_each_in_its_order() {
    let ranges = ["192.0.2.10-192.0.2.12", "2001:db8::a-2001:db8::c"];
    let ranges = ranges.map(|range| range.parse().unwrap());
    let of = |families: &[&str]| json!({ "ipFamilies": families });
    let services = [
        service("four", 1, &of(&["IPv4"]), &[]),
        service("both", 2, &of(&["IPv6", "IPv4"]), &[]),
        service("six", 3, &of(&["IPv6"]), &["2001:db8::a"]),
        service(
            "turned",
            4,
            &of(&["IPv4", "IPv6"]),
            &["2001:db8::c", "192.0.2.12"],
        ),
    ];
    let plan = plan(&services, &ranges, &BTreeMap::new());
    let addresses = |name: &str| plan.addresses[&key(name)].iter().map(IpAddr::to_string);
    assert!(addresses("four").eq(["192.0.2.10"]));
    assert!(addresses("both").eq(["2001:db8::b", "192.0.2.11"]));
    assert!(addresses("six").eq(["2001:db8::a"]));
    assert!(addresses("turned").eq(["192.0.2.12", "2001:db8::c"]));
    assert_eq!(plan.announce, [key("four"), key("both"), key("turned")]);
}
