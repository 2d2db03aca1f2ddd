//! Which flags each component of a release has, as `--help` of the upstream binaries lists them (`tests/flags`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;

/// The releases with a list: the oldest and the newest supported minor.
pub(crate) const RELEASES: [&str; 2] = ["v1.33.13", "v1.36.3"];

/// Flags that may be there several times: each adds to those before.
const REPEATED: [&str; 3] = [
    "service-account-issuer",
    "tls-sni-cert-key",
    "service-account-key-file",
];

/// The flags of a component without dashes, where there is a list of its minor.
pub(crate) fn listed(component: &str, release: &str) -> Option<BTreeSet<&'static str>> {
    let text = match (component, &release[..5]) {
        ("kube-apiserver", "v1.33") => include_str!("../flags/kube-apiserver-v1.33.txt"),
        ("kube-apiserver", "v1.36") => include_str!("../flags/kube-apiserver-v1.36.txt"),
        ("kube-controller-manager", "v1.33") => {
            include_str!("../flags/kube-controller-manager-v1.33.txt")
        }
        ("kube-controller-manager", "v1.36") => {
            include_str!("../flags/kube-controller-manager-v1.36.txt")
        }
        ("kube-scheduler", "v1.33") => include_str!("../flags/kube-scheduler-v1.33.txt"),
        ("kube-scheduler", "v1.36") => include_str!("../flags/kube-scheduler-v1.36.txt"),
        _ => return None,
    };
    Some(text.lines().collect())
}

/// Flags of the first three containers that their release does not have, and those of ours that are there twice.
pub(crate) fn unknown(pod: &PodSpec, release: &str, asked: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for container in &pod.containers[..3] {
        let known = listed(&container.name, release).unwrap();
        let mut seen = BTreeSet::new();
        for flag in container.args.iter().flatten() {
            let name = flag.split('=').next().unwrap_or_default();
            let word = name.trim_start_matches('-').replace('_', "-");
            let exists = known.contains(word.as_str()) || name == "-v";
            let once = seen.insert(word.clone())
                || REPEATED.contains(&word.as_str())
                || asked.contains(&word);
            if !exists || !once {
                wrong.push(format!("{} {flag}", container.name));
            }
        }
    }
    wrong
}

#[test]
fn the_oracle_tells_what_no_release_has() {
    let objects = crate::scenario::cluster_ip().build();
    let mut pod = crate::scenario::pod(&objects).clone();
    assert_eq!(unknown(&pod, "v1.36.3", &[]), [""; 0]);
    let args = pod.containers[1].args.as_mut().unwrap();
    args.extend(["--pod-eviction-timeout=1m", "--profiling=true"].map(str::to_owned));
    assert_eq!(
        unknown(&pod, "v1.36.3", &[]),
        [
            "kube-controller-manager --pod-eviction-timeout=1m",
            "kube-controller-manager --profiling=true"
        ]
    );
}
