use serde_json::json;

use super::*;
use crate::routes::Service;

const ID: &str = "0123456789abcdef0123456789abcdef";
const NAME: &str = "0123456789abcdef0123456789abcdef.example.com";

fn directory(routes: &Routes) -> Directory<'_> {
    Directory::new("example.com".parse().unwrap(), routes)
}

fn tenant(name: &str, schema: &str) -> Tenant {
    // With what is sent beside it.
    let object = json!({
        "apiVersion": "stoker.dev/v1alpha1", "kind": "TenantControlPlane",
        "metadata": { "namespace": "a", "name": name, "uid": "u", "resourceVersion": "1",
                      "managedFields": [{ "manager": "x" }] },
        "spec": { "anything": 1 },
        "status": { "storage": { "driver": "etcd", "setup": { "schema": schema, "user": schema } } },
    });
    serde_json::from_value(object).unwrap()
}

/// A slice with these last numbers of addresses: ready ones, and those that end.
fn slice(name: &str, ready: &[u8], ending: &[u8]) -> Slice {
    let endpoint = |number: &u8, conditions| json!({ "addresses": [format!("192.0.2.{number}")], "conditions": conditions });
    let ready = ready.iter().map(|number| {
        endpoint(
            number,
            json!({ "ready": true, "serving": true, "terminating": false }),
        )
    });
    let ending = ending.iter().map(|number| {
        endpoint(
            number,
            json!({ "ready": false, "serving": true, "terminating": true }),
        )
    });
    let starting = endpoint(
        &99,
        json!({ "ready": false, "serving": false, "terminating": false }),
    );
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "namespace": "a", "name": name,
                      "labels": { "stoker.dev/name": "one", "kubernetes.io/service-name": "one" } },
        "endpoints": ready.chain(ending).chain([starting]).collect::<Vec<_>>(),
        "ports": [{ "name": "other", "port": 1 }, { "name": "konnectivity-server", "port": 8132 }, { "name": "kube-apiserver", "port": 6443 }],
    });
    serde_json::from_value(object).unwrap()
}

fn backends(routes: &Routes) -> Option<Vec<SocketAddr>> {
    let route = routes.find(NAME)?;
    let mut found = Vec::new();
    while let Some(backend) = route.backend(Service::Api, &found) {
        found.push(backend.address());
    }
    found.sort_unstable();
    Some(found)
}

#[expect(clippy::unnecessary_wraps, reason = "as it is compared")]
fn addresses(numbers: &[u8]) -> Option<Vec<SocketAddr>> {
    let address = |number: &u8| SocketAddr::from(([192, 0, 2, *number], 6443));
    Some(numbers.iter().map(address).collect())
}

#[test]
fn a_tenant_is_a_route_in_whatever_order_it_is_told() {
    for tenant_first in [true, false] {
        let routes = Routes::default();
        let mut directory = directory(&routes);
        if tenant_first {
            directory.tenant(Event::Apply(tenant("one", ID)));
            assert_eq!(
                backends(&routes),
                addresses(&[]),
                "known, and not served yet"
            );
        }
        directory.slice(Event::Apply(slice("x", &[1, 2], &[3])));
        if !tenant_first {
            assert_eq!(backends(&routes), None);
            directory.tenant(Event::Apply(tenant("one", ID)));
        }
        assert_eq!(backends(&routes), addresses(&[1, 2]));
        directory.slice(Event::Apply(slice("y", &[4], &[])));
        assert_eq!(backends(&routes), addresses(&[1, 2, 4]));
        let tunnel = routes
            .find(NAME)
            .unwrap()
            .backend(Service::Tunnel, &[])
            .unwrap();
        assert_eq!(tunnel.address().port(), 8132);
        directory.slice(Event::Delete(slice("y", &[], &[])));
        assert_eq!(backends(&routes), addresses(&[1, 2]));
    }
}

#[test]
fn those_that_end_are_better_than_none() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.tenant(Event::Apply(tenant("one", ID)));
    directory.slice(Event::Apply(slice("x", &[], &[3])));
    assert_eq!(backends(&routes), addresses(&[3]));
    directory.slice(Event::Apply(slice("x", &[], &[])));
    assert_eq!(backends(&routes), addresses(&[]));
}

#[test]
fn a_status_that_was_lost_loses_no_route() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.tenant(Event::Apply(tenant("one", ID)));
    directory.tenant(Event::Apply(tenant("one", "")));
    assert_eq!(backends(&routes), addresses(&[]));
}

#[test]
fn another_id_is_another_name() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.slice(Event::Apply(slice("x", &[1], &[])));
    directory.tenant(Event::Apply(tenant("one", &"f".repeat(32))));
    directory.tenant(Event::Apply(tenant("one", ID)));
    assert_eq!(backends(&routes), addresses(&[1]));
    assert_eq!(routes.len(), 1);
}

#[test]
fn what_a_new_list_does_not_name_is_gone() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.tenant(Event::Init);
    directory.tenant(Event::InitApply(tenant("one", ID)));
    directory.tenant(Event::InitDone);
    assert!(!directory.is_complete());
    directory.slice(Event::Init);
    directory.slice(Event::InitApply(slice("x", &[1], &[])));
    directory.slice(Event::InitApply(slice("y", &[2], &[])));
    directory.slice(Event::InitDone);
    assert!(directory.is_complete());
    directory.slice(Event::Init);
    directory.slice(Event::InitApply(slice("y", &[2], &[])));
    assert_eq!(
        backends(&routes),
        addresses(&[1, 2]),
        "the list is not complete"
    );
    directory.slice(Event::InitDone);
    assert_eq!(backends(&routes), addresses(&[2]));
    directory.tenant(Event::Init);
    directory.tenant(Event::InitDone);
    assert_eq!(backends(&routes), None);
    directory.slice(Event::Init);
    directory.slice(Event::InitDone);
    assert!(directory.known.is_empty());
}

#[test]
fn a_tenant_that_was_made_anew_keeps_its_name() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.tenant(Event::Apply(tenant("one", ID)));
    directory.tenant(Event::Apply(tenant("two", ID)));
    directory.tenant(Event::Delete(tenant("one", ID)));
    assert_eq!(routes.find(NAME).unwrap().tenant.name(), "a/two");
    directory.tenant(Event::Delete(tenant("two", ID)));
    assert!(routes.is_empty() && directory.known.is_empty());
}

#[test]
fn a_name_stays_with_the_tenant_that_has_it() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.slice(Event::Apply(slice("x", &[1], &[])));
    directory.tenant(Event::Apply(tenant("one", ID)));
    directory.tenant(Event::Apply(tenant("thief", ID)));
    assert_eq!(backends(&routes), addresses(&[1]));
    directory.tenant(Event::Delete(tenant("thief", ID)));
    assert_eq!(backends(&routes), addresses(&[1]));
    // Made anew under another name, and the former goes after it has come.
    directory.tenant(Event::Apply(tenant("anew", ID)));
    directory.tenant(Event::Delete(tenant("one", ID)));
    assert_eq!(routes.find(NAME).unwrap().tenant.name(), "a/anew");
    directory.tenant(Event::Delete(tenant("anew", ID)));
    assert_eq!(backends(&routes), None);
}

#[test]
fn only_pods_of_the_tenants_own_service_are_led_to() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.tenant(Event::Apply(tenant("one", ID)));
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut object = json!({
            "metadata": { "namespace": "a", "name": "x",
                          "labels": { "stoker.dev/name": "one", "kubernetes.io/service-name": "one" } },
            "endpoints": [{ "addresses": ["192.0.2.1"], "conditions": {} }],
            "ports": [{ "name": "kube-apiserver", "port": 6443 }],
        });
        change(&mut object);
        Event::Apply(serde_json::from_value::<Slice>(object).unwrap())
    };
    directory.slice(changed(&|object| {
        object["metadata"]["labels"]["kubernetes.io/service-name"] = "other".into();
    }));
    assert_eq!(backends(&routes), addresses(&[]));
    for nobodys in [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "224.0.0.1",
    ] {
        directory.slice(changed(&|object| {
            object["endpoints"][0]["addresses"] = json!([nobodys]);
        }));
        assert_eq!(backends(&routes), addresses(&[]), "{nobodys}");
    }
    directory.slice(changed(&|_| {}));
    assert_eq!(backends(&routes), addresses(&[1]));
}

/// The tenant, which wakes or not.
fn resting(status: &str) -> Tenant {
    let object = json!({
        "metadata": { "namespace": "a", "name": "one" },
        "status": {
            "storage": { "setup": { "schema": ID } },
            "kubernetesResources": { "version": { "status": status } },
        },
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_tenant_that_wakes_is_reached_before_its_pod_is_ready() {
    let routes = Routes::default();
    let mut directory = directory(&routes);
    directory.slice(Event::Apply(slice("x", &[], &[])));
    directory.tenant(Event::Apply(resting("Provisioning")));
    assert!(directory.starting().is_empty(), "it does not wake");
    directory.tenant(Event::Apply(resting("Waking")));
    let start = directory.starting().first().unwrap().clone();
    assert_eq!(start.address, SocketAddr::from(([192, 0, 2, 99], 6443)));
    assert_eq!(backends(&routes), addresses(&[]));

    directory.is_ready(&start);
    assert_eq!(backends(&routes), addresses(&[99]));
    assert!(directory.starting().is_empty(), "it is asked no more");
    directory.tenant(Event::Apply(resting("Waking")));
    assert_eq!(backends(&routes), addresses(&[99]), "it stays so");

    directory.slice(Event::Apply(slice("x", &[1], &[])));
    assert_eq!(backends(&routes), addresses(&[1]), "now it is said");
    directory.slice(Event::Apply(slice("x", &[], &[])));
    assert_eq!(backends(&routes), addresses(&[]), "it answered long ago");
    directory.tenant(Event::Delete(resting("Waking")));
    assert!(directory.starting().is_empty());
    directory.is_ready(&start);
    assert_eq!(routes.len(), 0);
}
