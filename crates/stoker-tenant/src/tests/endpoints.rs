//! Families and order of the API server's endpoints.

use super::{access, plain};
use crate::build;

fn slices(network: &str, addresses: &[&str]) -> Vec<(String, String, Vec<String>)> {
    let objects = build(
        &plain("v1.36.3", network),
        &access("api.example.com", addresses),
    )
    .unwrap();
    assert_eq!(objects.endpoints.is_empty(), addresses.is_empty());
    objects
        .endpoint_slices
        .into_iter()
        .map(|slice| {
            let addresses = slice.endpoints.into_iter().flat_map(|e| e.addresses);
            (
                slice.metadata.name.unwrap(),
                slice.address_type,
                addresses.collect(),
            )
        })
        .collect()
}

fn slice(name: &str, family: &str, addresses: &[&str]) -> (String, String, Vec<String>) {
    let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
    (name.to_owned(), family.to_owned(), addresses)
}

#[test]
fn addresses_are_sorted_and_listed_once() {
    assert_eq!(
        slices("", &["192.0.2.9", "192.0.2.10", "192.0.2.9"]),
        [slice("kubernetes", "IPv4", &["192.0.2.9", "192.0.2.10"])]
    );
}

#[test]
fn each_family_has_a_slice_of_its_own() {
    assert_eq!(
        slices("", &["2001:db8::1", "192.0.2.9"]),
        [
            slice("kubernetes", "IPv4", &["192.0.2.9"]),
            slice("kubernetes-ipv6", "IPv6", &["2001:db8::1"]),
        ]
    );
}

#[test]
fn the_first_service_network_names_the_slice() {
    let network =
        "networkProfile: { serviceCidr: 'fd00:10:96::/112', podCidr: 'fd00:10:244::/56' }";
    assert_eq!(
        slices(network, &["2001:db8::1"]),
        [slice("kubernetes", "IPv6", &["2001:db8::1"])]
    );
    assert_eq!(
        slices(network, &["192.0.2.9"]),
        [slice("kubernetes-ipv4", "IPv4", &["192.0.2.9"])]
    );
}

#[test]
fn without_an_address_there_are_no_endpoints() {
    assert_eq!(slices("", &[]), []);
}
