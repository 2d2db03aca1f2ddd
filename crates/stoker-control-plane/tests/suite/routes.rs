//! What people dial, and what the tenant's own pods dial, where there is a name in front of the Service.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use stoker_control_plane::{Exposure, TLS_ROUTE_VERSIONS, exposure, ingress, tls_route};

use crate::scenario::{STABLE_NAME, Scenario, pod, spec, tenant};

const SERVING: &str = "gpu-17-api-server-certificate";

/// A tenant with more in its spec, whose load balancer has published this.
fn with(more: &Value, published: &Value) -> (Value, Value) {
    let mut spec = spec("LoadBalancer", 1, "v1.36.3", &json!({}));
    json_patch::merge(&mut spec, more);
    let service = json!({
        "metadata": {},
        "spec": {
            "clusterIPs": ["10.100.7.9"],
            "ipFamilies": spec["controlPlane"]["service"]["ipFamilies"],
        },
        "status": { "loadBalancer": { "ingress": published } },
    });
    (spec, service)
}

fn read(more: &Value, name: Option<&str>, published: &Value) -> Exposure {
    let (spec, service) = with(more, published);
    let service: Service = serde_json::from_value(service).unwrap();
    exposure(&tenant(&spec), name, Some(&service))
}

/// What people dial, what pods dial, and the port of the Service.
fn ways(
    more: &Value,
    name: Option<&str>,
    published: &Value,
) -> (Option<String>, Vec<String>, Option<u16>) {
    let found = read(more, name, published);
    let direct = found.direct.iter().map(ToString::to_string).collect();
    (
        found.endpoint.map(|endpoint| endpoint.to_string()),
        direct,
        found.port,
    )
}

fn dialed(
    endpoint: &str,
    direct: &[&str],
    port: u16,
) -> (Option<String>, Vec<String>, Option<u16>) {
    let direct = direct.iter().map(|host| (*host).to_owned()).collect();
    (Some(endpoint.to_owned()), direct, Some(port))
}

#[test]
fn names_stand_before_addresses_and_pods_dial_addresses() {
    let published = json!([{ "ip": "203.0.113.5" }]);
    let route = |kind: &str, more: Value| json!({ "controlPlane": { kind: more } });
    let named = route("ingress", json!({ "hostname": "api.example.com:443" }));
    assert_eq!(
        ways(&named, Some(STABLE_NAME), &published),
        dialed("api.example.com:443", &["203.0.113.5"], 6443)
    );
    let plain = route("ingress", json!({ "hostname": "api.example.com" }));
    assert_eq!(
        ways(&plain, None, &published),
        dialed("api.example.com:6443", &["203.0.113.5"], 6443)
    );
    let listener = json!({ "hostname": "api.example.com", "parentRefs": [
        { "name": "public", "port": 8443 }, { "name": "private", "port": 1 },
    ] });
    assert_eq!(
        ways(&route("gateway", listener), None, &published),
        dialed("api.example.com:8443", &["203.0.113.5"], 6443)
    );
    let anywhere = json!({ "hostname": "api.example.com", "parentRefs": [{ "name": "public" }] });
    assert_eq!(
        ways(&route("gateway", anywhere), Some(STABLE_NAME), &published),
        dialed("api.example.com:6443", &["203.0.113.5"], 6443)
    );
    assert_eq!(
        ways(&json!({}), Some(STABLE_NAME), &published),
        dialed(&format!("{STABLE_NAME}:6443"), &["203.0.113.5"], 6443)
    );
    assert_eq!(
        ways(&json!({}), None, &published),
        dialed("203.0.113.5:6443", &["203.0.113.5"], 6443)
    );
}

/// What pods dial, what listeners on nodes dial, and the name that they tell.
fn listened(
    service_type: &str,
    more: &Value,
    name: Option<&str>,
) -> (Vec<String>, Vec<String>, Option<String>) {
    let mut spec = spec(service_type, 1, "v1.36.3", &json!({ "port": 7443 }));
    let listener = json!({ "addons": { "nodeListener": {} } });
    json_patch::merge(&mut spec, &listener);
    json_patch::merge(&mut spec, more);
    let ingress = json!([{ "ip": "203.0.113.5" }, { "hostname": "lb.example.com" }]);
    let service = json!({
        "metadata": {},
        "spec": { "clusterIPs": ["10.100.7.9"] },
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    let service: Service = serde_json::from_value(service).unwrap();
    let found = exposure(&tenant(&spec), name, Some(&service));
    assert_eq!(found.direct_port(), Some(6443));
    let listeners = found.listeners.unwrap();
    (
        found.direct.iter().map(ToString::to_string).collect(),
        listeners.servers.iter().map(ToString::to_string).collect(),
        listeners.name,
    )
}

#[test]
fn listeners_on_nodes_lead_through_a_gateway_where_nothing_else_leads() {
    let own = || vec!["192.0.0.64".to_owned()];
    let named = format!("{STABLE_NAME}:7443");
    let name = || Some(STABLE_NAME.to_owned());
    assert_eq!(
        listened("ClusterIP", &json!({}), name().as_deref()),
        (own(), vec![named], name())
    );
    // Without a gateway they dial what pods would.
    let published = vec!["203.0.113.5:7443".to_owned()];
    assert_eq!(
        listened("LoadBalancer", &json!({}), name().as_deref()),
        (own(), published, None)
    );
    let address = json!({ "networkProfile": { "address": "198.51.100.1" } });
    let asked = ["198.51.100.1:7443".to_owned()];
    let (direct, servers, told) = listened("ClusterIP", &address, name().as_deref());
    assert_eq!(
        (direct, servers[0].clone(), told),
        (own(), asked[0].clone(), None)
    );
    let (_, servers, told) = listened("ClusterIP", &json!({}), None);
    assert_eq!((servers, told), (vec!["10.100.7.9:7443".to_owned()], None));
}

#[test]
fn listeners_are_at_one_address_of_each_family_of_services() {
    let both = json!({
        "networkProfile": { "serviceCidrs": ["fd00:10:96::/112", "10.96.0.0/16"], "podCidrs": ["fd00:10:244::/56", "10.244.0.0/16"] },
        "addons": { "nodeListener": { "addresses": ["198.51.100.9"] } },
    });
    let (direct, ..) = listened("ClusterIP", &both, Some(STABLE_NAME));
    assert_eq!(direct, ["[fd53:746f:6b72::1]", "198.51.100.9"]);
}

/// Kubeconfigs need not wait for the load balancer: the name is known before.
#[test]
fn a_stable_name_is_there_before_any_address() {
    assert_eq!(
        ways(&json!({}), Some(STABLE_NAME), &json!([])),
        dialed(&format!("{STABLE_NAME}:6443"), &[], 6443)
    );
    assert_eq!(ways(&json!({}), None, &json!([])).0, None);
}

#[test]
fn an_address_in_front_is_dialed_by_all() {
    let published = json!([{ "ip": "203.0.113.5" }, { "ip": "2001:db8::5" }]);
    let asked = json!({ "networkProfile": {
        "address": "203.0.113.1", "advertiseAddress": "198.51.100.1",
    } });
    // The other family is not what that address stands for.
    assert_eq!(
        ways(&asked, None, &published),
        dialed(
            "198.51.100.1:6443",
            &["198.51.100.1", "[2001:db8::5]"],
            6443
        )
    );
    assert_eq!(
        ways(&asked, Some(STABLE_NAME), &published).0.unwrap(),
        format!("{STABLE_NAME}:6443")
    );
    let profile = json!({ "advertiseAddress": "198.51.100.1", "port": 30443 });
    let node_port = spec("NodePort", 1, "v1.36.3", &profile);
    let found = exposure(&tenant(&node_port), None, None);
    assert_eq!(found.endpoint.unwrap().to_string(), "198.51.100.1:30443");
}

#[test]
fn the_first_family_is_dialed_and_names_only_where_there_is_no_address() {
    let families =
        |families: Value| json!({ "controlPlane": { "service": { "ipFamilies": families } } });
    let both = json!([
        { "hostname": "lb.example" }, { "ip": "203.0.113.5" }, { "ip": "2001:db8::5" },
    ]);
    assert_eq!(
        ways(&families(json!(["IPv6", "IPv4"])), None, &both),
        dialed(
            "[2001:db8::5]:6443",
            &["[2001:db8::5]", "203.0.113.5"],
            6443
        )
    );
    assert_eq!(
        ways(&families(json!(["IPv4", "IPv6"])), None, &both),
        dialed("203.0.113.5:6443", &["203.0.113.5", "[2001:db8::5]"], 6443)
    );
    let names = json!([{ "hostname": "lb.example" }]);
    assert_eq!(
        ways(&json!({}), None, &names),
        dialed("lb.example:6443", &["lb.example"], 6443)
    );
    assert_eq!(
        ways(&json!({}), Some(STABLE_NAME), &names),
        dialed(&format!("{STABLE_NAME}:6443"), &["lb.example"], 6443)
    );
}

/// Whoever comes by any of them finds the certificate to be for it.
#[test]
fn the_serving_certificate_is_for_every_way() {
    let more = json!({
        "controlPlane": { "ingress": { "hostname": "api.example.com:443" } },
        "networkProfile": { "address": "203.0.113.1", "advertiseAddress": "198.51.100.1" },
    });
    let (spec, service) = with(&more, &json!([{ "ip": "2001:db8::5" }]));
    let scenario = Scenario::named(&spec, Some(STABLE_NAME), Some(&service));
    let names = names(&scenario);
    for name in [
        "api.example.com",
        STABLE_NAME,
        "203.0.113.1",
        "198.51.100.1",
        "2001:db8::5",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    let (spec, service) = with(&json!({}), &json!([{ "hostname": "lb.example" }]));
    let names = self::names(&Scenario::new(&spec, Some(&service)));
    assert!(names.iter().any(|found| found == "lb.example"), "{names:?}");
}

/// Names and addresses of the serving certificate.
fn names(scenario: &Scenario) -> Vec<String> {
    use x509_parser::prelude::GeneralName;
    let existing = scenario.existing();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&existing[SERVING]["apiserver.crt"]).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => std::net::Ipv4Addr::from(v4).to_string(),
            Err(_) => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).unwrap()).to_string(),
        },
        other => panic!("{other:?}"),
    };
    names.value.general_names.iter().map(text).collect()
}

/// Tokens are signed in the tenant's own name. Those from before stay good: the order of the flags counts.
#[test]
fn the_issuer_of_tokens_is_the_stable_name() {
    let issuers = |name: Option<&str>, more: &Value| {
        let (spec, service) = with(more, &json!([]));
        let objects = Scenario::named(&spec, name, Some(&service)).build();
        let command = pod(&objects).containers[0].args.clone().unwrap_or_default();
        let command = pod(&objects).containers[0]
            .command
            .clone()
            .unwrap_or_default()
            .into_iter()
            .chain(command);
        let wanted = |flag: &String| {
            flag.starts_with("--service-account-issuer")
                || flag.starts_with("--service-account-jwks")
        };
        command.filter(wanted).collect::<Vec<_>>()
    };
    let common = "https://kubernetes.default.svc.cluster.local";
    assert_eq!(
        issuers(None, &json!({})),
        [
            format!("--service-account-issuer={common}"),
            format!("--service-account-jwks-uri={common}/openid/v1/jwks"),
        ]
    );
    // A name that would be sorted behind the common one.
    assert_eq!(
        issuers(Some("zz.example"), &json!({})),
        [
            "--service-account-issuer=https://zz.example".to_owned(),
            format!("--service-account-issuer={common}"),
            "--service-account-jwks-uri=https://zz.example/openid/v1/jwks".to_owned(),
        ]
    );
    let own = json!({ "controlPlane": { "deployment": { "extraArgs": { "apiServer": [
        "--service-account-issuer=https://mine.example",
    ] } } } });
    assert_eq!(
        issuers(Some(STABLE_NAME), &own)
            .iter()
            .filter(|flag| flag.starts_with("--service-account-issuer"))
            .collect::<Vec<_>>(),
        ["--service-account-issuer=https://mine.example"]
    );
}

/// An address, a hostname or a route that comes, goes or changes restarts nothing.
#[test]
fn no_way_is_in_the_pods() {
    let template = |more: &Value, published: &Value| {
        let (spec, service) = with(more, published);
        let objects = Scenario::named(&spec, Some(STABLE_NAME), Some(&service)).build();
        let mut template = serde_json::to_value(objects.deployment.spec.unwrap().template).unwrap();
        // Of keys that every scenario makes anew.
        template["metadata"]["annotations"] = Value::Null;
        template
    };
    let before = template(&json!({}), &json!([]));
    for published in [
        json!([{ "ip": "203.0.113.5" }]),
        json!([{ "hostname": "lb.example" }]),
    ] {
        assert_eq!(template(&json!({}), &published), before);
    }
    for more in [
        json!({ "networkProfile": { "advertiseAddress": "198.51.100.1" } }),
        json!({ "controlPlane": { "ingress": { "hostname": "api.example.com:443" } } }),
        json!({ "controlPlane": { "gateway": { "hostname": "api.example.com" } } }),
    ] {
        assert_eq!(template(&more, &json!([])), before, "{more}");
    }
}

#[test]
fn routes_are_made_only_where_they_are_asked_for() {
    let (spec, _) = with(&json!({}), &json!([]));
    let plain = tenant(&spec);
    assert_eq!(ingress(&plain), None);
    assert_eq!(tls_route(&plain, "v1"), None);
    let asked = json!({ "controlPlane": { "gateway": { "hostname": "api.example.com" } } });
    let (spec, _) = with(&asked, &json!([]));
    assert_eq!(ingress(&tenant(&spec)), None);
    for version in TLS_ROUTE_VERSIONS {
        let route = tls_route(&tenant(&spec), version).unwrap();
        let route = serde_json::to_value(route).unwrap();
        let group_version = format!("gateway.networking.k8s.io/{version}");
        assert_eq!(route["apiVersion"], group_version.as_str());
    }
}
