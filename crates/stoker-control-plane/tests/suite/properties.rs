//! Whatever people ask for, pods keep to the restricted profile, to our own flags, to flags that their release has, and to the
//! CIS items.

mod kubernetes;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use stoker_api::arguments::Component;
use stoker_api::tenant::Tenant;
use stoker_api::v1alpha1::TenantControlPlane;

use self::kubernetes::kubernetes;
use crate::cis::{Manifest, violations};
use crate::flag_oracle::unknown;
use crate::pod_security::broken;
use crate::scenario::{cluster_ip, pod, spec};

/// Specs per run; `STOKER_SPECS=10000` is for a change of what is built, and takes minutes.
const SPECS: u32 = 1_000;

fn runner() -> TestRunner {
    let asked = std::env::var("STOKER_SPECS").ok();
    let cases = asked.and_then(|text| text.parse().ok()).unwrap_or(SPECS);
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

/// An object of fields, each there or not, each with one of a few values.
fn object(fields: Vec<(&'static str, Vec<Value>)>) -> BoxedStrategy<Value> {
    fields
        .into_iter()
        .map(|(name, values)| option::of(select(values)).prop_map(move |value| (name, value)))
        .collect::<Vec<_>>()
        .prop_map(present)
        .boxed()
}

fn present(fields: Vec<(&'static str, Option<Value>)>) -> Value {
    let there = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

/// As hostile as core/v1 allows: admission refuses most of it, what is built must not rely on that.
fn container_security() -> BoxedStrategy<Value> {
    let profiles = vec![
        json!({ "type": "Unconfined" }),
        json!({ "type": "RuntimeDefault" }),
        json!({ "type": "Localhost", "localhostProfile": "a.json" }),
    ];
    object(vec![
        ("privileged", vec![json!(true), json!(false)]),
        ("allowPrivilegeEscalation", vec![json!(true), json!(false)]),
        ("runAsNonRoot", vec![json!(true), json!(false)]),
        ("runAsUser", vec![json!(0), json!(1000)]),
        ("runAsGroup", vec![json!(0), json!(1000)]),
        ("readOnlyRootFilesystem", vec![json!(true), json!(false)]),
        ("procMount", vec![json!("Unmasked"), json!("Default")]),
        ("seccompProfile", profiles.clone()),
        ("appArmorProfile", profiles),
        (
            "capabilities",
            vec![
                json!({ "add": ["SYS_ADMIN", "NET_BIND_SERVICE"] }),
                json!({ "add": ["ALL"], "drop": ["KILL"] }),
                json!({ "drop": [] }),
            ],
        ),
        (
            "seLinuxOptions",
            vec![
                json!({ "type": "spc_t" }),
                json!({ "type": "container_t", "level": "s0" }),
                json!({ "user": "system_u", "role": "r" }),
            ],
        ),
    ])
}

fn pod_security_context() -> BoxedStrategy<Value> {
    let more = object(vec![
        ("fsGroup", vec![json!(0), json!(2000)]),
        ("supplementalGroups", vec![json!([0, 4])]),
        (
            "sysctls",
            vec![
                json!([{ "name": "kernel.msgmax", "value": "1" }]),
                json!([{ "name": "net.ipv4.tcp_syncookies", "value": "1" }]),
            ],
        ),
    ]);
    (container_security(), more)
        .prop_map(|(mut context, more)| {
            let context_fields = context.as_object_mut().unwrap();
            for field in [
                "privileged",
                "allowPrivilegeEscalation",
                "capabilities",
                "procMount",
            ] {
                context_fields.remove(field);
            }
            context_fields.remove("readOnlyRootFilesystem");
            context_fields.extend(more.as_object().unwrap().clone());
            context
        })
        .boxed()
}

fn container(name: String) -> BoxedStrategy<Value> {
    let hooks = vec![
        json!({ "preStop": { "httpGet": { "port": 80, "host": "169.254.169.254" } } }),
        json!({ "postStart": { "tcpSocket": { "port": 80, "host": "10.0.0.1" } } }),
        json!({ "preStop": { "exec": { "command": ["true"] } } }),
    ];
    let probes = vec![
        json!({ "httpGet": { "port": 80, "host": "10.0.0.1" } }),
        json!({ "tcpSocket": { "port": 80, "host": "10.0.0.1" } }),
        json!({ "exec": { "command": ["true"] } }),
    ];
    let rest = object(vec![
        (
            "ports",
            vec![
                json!([{ "containerPort": 80, "hostPort": 80, "hostIP": "0.0.0.0" }]),
                json!([{ "containerPort": 80 }]),
            ],
        ),
        ("lifecycle", hooks),
        ("livenessProbe", probes.clone()),
        ("readinessProbe", probes.clone()),
        ("startupProbe", probes),
        ("restartPolicy", vec![json!("Always")]),
        (
            "volumeDevices",
            vec![json!([{ "name": "disk", "devicePath": "/dev/a" }])],
        ),
        (
            "volumeMounts",
            vec![
                json!([{ "name": "controller-manager", "mountPath": "/keys" }]),
                json!([{ "name": "volume-0", "mountPath": "/a" }]),
            ],
        ),
        (
            "resources",
            vec![json!({ "requests": { "cpu": 1 } }), json!({})],
        ),
    ]);
    (rest, option::of(container_security()))
        .prop_map(move |(mut container, security)| {
            container["name"] = json!(name);
            container["image"] = json!("a");
            if let Some(security) = security {
                container["securityContext"] = security;
            }
            container
        })
        .boxed()
}

fn containers(prefix: &'static str) -> BoxedStrategy<Value> {
    (0usize..3)
        .prop_flat_map(move |count| {
            let each: Vec<_> = (0..count)
                .map(|i| container(format!("{prefix}-{i}")))
                .collect();
            each.prop_map(Value::Array)
        })
        .boxed()
}

fn volumes() -> BoxedStrategy<Value> {
    let sources = vec![
        json!({ "configMap": { "name": "a" } }),
        json!({ "secret": { "secretName": "a" } }),
        json!({ "emptyDir": { "sizeLimit": 1 } }),
        json!({ "projected": { "sources": [{ "secret": { "name": "a" } }] } }),
        // Admission knows nothing of the path, and this object has another source too.
        json!({ "emptyDir": {}, "hostPath": { "path": "/" } }),
    ];
    vec(select(sources), 0..3)
        .prop_map(|sources| {
            let named = sources.into_iter().enumerate().map(|(i, mut source)| {
                source["name"] = json!(format!("volume-{i}"));
                source
            });
            Value::Array(named.collect())
        })
        .boxed()
}

/// Arguments of the allow-list, in any spelling.
fn arguments(component: Component) -> BoxedStrategy<Value> {
    let names: Vec<&str> = component.allowed().collect();
    let argument = (select(names), any::<bool>(), "[a-z0-9,=/.*-]{0,12}");
    let text = argument.prop_map(|(name, underscores, value)| {
        let dashes = name.len() - name.trim_start_matches('-').len();
        let (dashes, word) = name.split_at(dashes);
        let word = if underscores {
            word.replace('-', "_")
        } else {
            word.to_owned()
        };
        json!(format!("{dashes}{word}={value}"))
    });
    vec(text, 0..6).prop_map(Value::Array).boxed()
}

fn per_component(each: fn(Component) -> BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    Component::ALL
        .map(|component| {
            option::of(each(component)).prop_map(move |value| (component.field(), value))
        })
        .to_vec()
        .prop_map(present)
        .boxed()
}

fn deployment() -> BoxedStrategy<Value> {
    let mount = |_| {
        let mounts = vec![
            json!([{ "name": "api-server", "mountPath": "/keys" }]),
            json!([{ "name": "volume-0", "mountPath": "/data" }]),
        ];
        select(mounts).boxed()
    };
    let simple = object(vec![
        ("serviceAccountName", vec![json!("other")]),
        (
            "automountServiceAccountToken",
            vec![json!(true), json!(false)],
        ),
        ("runtimeClassName", vec![json!("gvisor")]),
        ("affinity", vec![json!({})]),
        ("tolerations", vec![json!([{ "operator": "Exists" }])]),
        (
            "probes",
            vec![json!({ "readiness": { "periodSeconds": 1 }, "scheduler": { "readiness": {} } })],
        ),
        ("strategy", vec![json!({ "type": "Recreate" })]),
        (
            "podAdditionalMetadata",
            vec![json!({ "labels": { "stoker.dev/name": "other" } })],
        ),
    ]);
    let parts = (
        simple,
        containers("side"),
        containers("init"),
        volumes(),
        per_component(mount),
        per_component(|_| container_security()),
        pod_security_context(),
        per_component(arguments),
    );
    parts
        .prop_map(
            |(mut all, side, init, volumes, mounts, security, pod, arguments)| {
                all["additionalContainers"] = side;
                all["additionalInitContainers"] = init;
                all["additionalVolumes"] = volumes;
                all["additionalVolumeMounts"] = mounts;
                all["containerSecurityContexts"] = security;
                all["podSecurityContext"] = pod;
                all["extraArgs"] = arguments;
                all
            },
        )
        .boxed()
}

fn named_by_argument(deployment: &Value) -> bool {
    let arguments = deployment["extraArgs"]["apiServer"].as_array();
    let mut texts = arguments.into_iter().flatten().filter_map(Value::as_str);
    texts.any(|text| {
        text.replace('_', "-")
            .starts_with("--service-account-issuer=")
    })
}

fn validated(deployment: &Value, kubernetes: &Value) -> Tenant {
    let mut spec = spec("ClusterIP", 1, "v1.36.3", &json!({}));
    spec["controlPlane"]["deployment"] = deployment.clone();
    spec["kubernetes"] = kubernetes.clone();
    // Issuers are given in one place.
    if named_by_argument(deployment) {
        spec["kubernetes"]["serviceAccountIssuers"] = json!([]);
    }
    spec["controlPlane"]["size"] = kubernetes["size"].clone();
    let object: TenantControlPlane = serde_json::from_value(json!({
        "apiVersion": "stoker.dev/v1alpha1",
        "kind": "TenantControlPlane",
        "metadata": { "name": "gpu-17", "namespace": "prod", "uid": "1" },
        "spec": spec,
    }))
    .unwrap();
    Tenant::validate(&object).unwrap()
}

/// Names of the arguments that people gave, without dashes.
fn asked(tenant: &Tenant) -> Vec<String> {
    let of = |component| tenant.deployment.extra_args.of(component).iter();
    let all = Component::ALL.into_iter().flat_map(of);
    let names = all.map(|argument| argument.split('=').next().unwrap_or_default());
    names
        .map(|name| name.trim_start_matches('-').replace('_', "-"))
        .collect()
}

/// Names of the flags for whose values people answer: their arguments, and what fields give as it is.
fn answered(tenant: &Tenant) -> Vec<String> {
    let log = tenant.audit.log.as_ref();
    let bounds = [
        ("audit-log-maxage", log.and_then(|log| log.max_age)),
        ("audit-log-maxbackup", log.and_then(|log| log.max_backups)),
        ("audit-log-maxsize", log.and_then(|log| log.max_size)),
    ];
    let bounds = bounds.into_iter().filter(|(_, value)| value.is_some());
    let mut names = asked(tenant);
    names.extend(bounds.map(|(name, _)| name.to_owned()));
    names
}

/// Flags that people may not set are there once, as they were.
fn check_flags(component: Component, ours: &[String], built: &[String]) {
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().replace('_', "-");
    let mut values = built.iter();
    for flag in ours {
        let fixed = !component.allowed().any(|allowed| allowed == name(flag));
        let same_name = built.iter().filter(|other| name(other) == name(flag));
        if fixed {
            assert_eq!(same_name.collect::<Vec<_>>(), [flag]);
        }
    }
    assert!(values.all(|flag| flag.starts_with('-') && flag.contains('=')));
}

#[test]
fn no_spec_leaves_the_restricted_profile_or_loses_a_flag_of_ours() {
    let mut scenario = cluster_ip();
    let scenario = std::cell::RefCell::new(&mut scenario);
    runner()
        .run(&(deployment(), kubernetes()), |(deployment, kubernetes)| {
            let mut scenario = scenario.borrow_mut();
            scenario.tenant = validated(&json!({}), &kubernetes);
            let objects = scenario.build();
            let manifest = Manifest::from(&objects);
            let answers = answered(&scenario.tenant);
            prop_assert_eq!(violations(&manifest, &answers), [""; 0]);
            let plain = pod(&objects).clone();
            scenario.tenant = validated(&deployment, &kubernetes);
            let asked = asked(&scenario.tenant);
            let objects = scenario.build();
            let manifest = Manifest::from(&objects);
            let answers = answered(&scenario.tenant);
            prop_assert_eq!(violations(&manifest, &answers), [""; 0]);
            let release = scenario.tenant.version.to_string();
            prop_assert_eq!(unknown(pod(&objects), &release, &asked), [""; 0]);
            let built = pod(&objects);
            let value = serde_json::to_value(built).unwrap();
            prop_assert_eq!(broken(&value), Vec::<String>::new());
            prop_assert_eq!(&value["automountServiceAccountToken"], &json!(false));
            for (component, (ours, theirs)) in Component::ALL
                .into_iter()
                .zip(plain.containers.iter().zip(&built.containers))
            {
                prop_assert_eq!(&ours.name, &theirs.name);
                let args = |c: &k8s_openapi::api::core::v1::Container| c.args.clone().unwrap();
                check_flags(component, &args(ours), &args(theirs));
            }
            // The keys of the control plane are in its own three containers, each in one.
            for mounted in ["api-server", "controller-manager", "scheduler"] {
                let text = value.to_string();
                let own = format!(r#""mountPath":"/etc/kubernetes","name":"{mounted}""#);
                prop_assert_eq!(text.matches(&own).count(), 1);
                let elsewhere = format!(r#""mountPath":"/keys","name":"{mounted}""#);
                prop_assert!(!text.contains(&elsewhere));
            }
            Ok(())
        })
        .unwrap();
}
