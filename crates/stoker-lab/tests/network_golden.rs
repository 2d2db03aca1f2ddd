//! `compile` against golden files: `golden/network_policy/NAME.yaml` holds the objects and `NAME.nft` the
//! rules of the node `here`. `UPDATE_GOLDEN=1` writes the rules anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may")]

#[path = "network/objects.rs"]
mod objects;

use std::path::{Path, PathBuf};

use objects::Objects;
use stoker_lab::network::{CniAddresses, PodFacts, PodKey};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/network_policy");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    cases.sort();
    cases
}

fn read(case: &Path) -> Objects {
    Objects::parse(&std::fs::read_to_string(case).unwrap())
}

#[test]
fn policies_compile_to_the_golden_rules() {
    let mut different = Vec::new();
    for case in cases() {
        let golden = case.with_extension("nft");
        let compiled = read(&case).compile().to_string();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &compiled).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != compiled {
            different.push(format!("{}\n{compiled}", golden.display()));
        }
    }
    assert!(
        different.is_empty(),
        "compiled rules differ from {}",
        different.join("\n")
    );
}

#[test]
fn the_order_of_objects_does_not_matter() {
    for case in cases() {
        let mut objects = read(&case);
        let first = objects.compile();
        objects.pods.reverse();
        objects.namespaces.reverse();
        objects.policies.reverse();
        assert_eq!(objects.compile(), first, "{}", case.display());
    }
}

const DENIED: &str = "
kind: Namespace
metadata: { name: a }
---
kind: Pod
metadata: { namespace: a, name: new, uid: u-1 }
spec: { nodeName: here, containers: [] }
---
kind: NetworkPolicy
metadata: { namespace: a, name: deny }
spec: { podSelector: {} }
";

#[test]
fn a_pod_is_isolated_from_the_moment_cni_gave_it_an_address() {
    let objects = Objects::parse(DENIED);
    assert_eq!(objects.compile().isolated(), 0);
    let key = |uid: &str| PodKey {
        namespace: "a".into(),
        name: "new".into(),
        uid: uid.into(),
    };
    let early = CniAddresses::from([(key("u-1"), vec!["10.1.0.9".parse().unwrap()])]);
    let compiled = objects.compile_with(&early);
    assert_eq!(compiled.isolated(), 1);
    assert!(
        compiled
            .script()
            .contains("ip daddr vmap { 10.1.0.9 : goto pod/a/new/ingress }")
    );

    let of_a_former_pod = CniAddresses::from([(key("u-0"), vec!["10.1.0.9".parse().unwrap()])]);
    assert_eq!(objects.compile_with(&of_a_former_pod).isolated(), 0);
}

#[test]
fn an_address_that_two_pods_show_belongs_to_the_younger() {
    let objects = Objects::parse(
        "
kind: Pod
metadata: { namespace: a, name: a-young, creationTimestamp: '2026-01-02T00:00:00Z' }
spec: { nodeName: here, containers: [] }
status: { podIP: 10.1.0.1 }
---
kind: Pod
metadata: { namespace: a, name: b-old, creationTimestamp: '2026-01-01T00:00:00Z' }
spec: { nodeName: here, containers: [] }
status: { podIP: 10.1.0.1 }
",
    );
    let pods = PodFacts::collect(&objects.pods, "here", &CniAddresses::new());
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["a-young"]);
}

#[test]
fn chains_of_the_longest_names_differ_and_fit() {
    let long = "n".repeat(250);
    let pod = |name: &str, address: &str| {
        format!(
            "---\nkind: Pod\nmetadata: {{ namespace: a, name: {name} }}\n\
             spec: {{ nodeName: here, containers: [] }}\nstatus: {{ podIP: {address} }}\n"
        )
    };
    let yaml = pod(&format!("{long}a"), "10.1.0.1") + &pod(&format!("{long}b"), "10.1.0.2");
    let mut objects = Objects::parse(DENIED);
    objects.pods = Objects::parse(&yaml).pods;
    let compiled = objects.compile();
    let chains: Vec<&str> = compiled
        .script()
        .lines()
        .filter(|line| line.contains("chain pod/"))
        .collect();
    assert_eq!(chains.len(), 2);
    assert_ne!(chains[0], chains[1]);
    assert!(chains.iter().all(|chain| chain.len() < 255), "{chains:?}");
}
