#!/usr/bin/env python3
"""Prints crates/stoker-api/src/feature_gates/table.rs: the gates that a component of each minor lists.

    go mod download k8s.io/kubernetes@v1.34.4 k8s.io/{apiserver,apiextensions-apiserver,client-go,component-base}@v0.34.4 …
    hack/feature-gates.py 33.13 34.4 35.4 36.3 >crates/stoker-api/src/feature_gates/table.rs

They are read from the sources of the releases named, as modules in Go's cache: a component's --help lists the gates that
are alpha or beta in its minor. `cargo test -p stoker-control-plane --test suite upstream` holds the table against --help of
the releases that the lab has built.
"""
import pathlib, re, subprocess, sys

MODULES = pathlib.Path(subprocess.check_output(["go", "env", "GOMODCACHE"], text=True).strip()) / "k8s.io"
PLACES = {
    "kubernetes@v1": ["pkg/features"],
    "apiserver@v0": ["pkg/features"],
    "apiextensions-apiserver@v0": ["pkg/features"],
    "client-go@v0": ["features"],
    "component-base@v0": ["logs/api/v1", "metrics/features"],
    "controller-manager@v0": ["pkg/features"],
}
# Stoker sets these itself: `arguments::FIXED_GATES`.
FIXED = {"AllAlpha", "AllBeta", "UnknownVersionInteroperabilityProxy"}


def listed(release):
    minor = int(release.split(".")[0])
    text = ""
    for module, places in PLACES.items():
        for place in places:
            directory = MODULES / f"{module}.{release}" / place
            if not directory.is_dir() and not module.startswith("controller-manager"):
                sys.exit(f"{directory} is not there: go mod download it")
            for file in sorted(directory.glob("*.go")):
                if not file.name.endswith("_test.go"):
                    text += file.read_text()
    names = dict(re.findall(r'(\w+)\s+(?:featuregate\.)?Feature\s*=\s*"([^"]+)"', text))
    gates = set()
    for name, body in re.findall(r"\n\t+([\w.]+):\s*\{\n((?:\t+\{.*\n|\t+//.*\n)+?)\t+\}", text):
        specs = re.findall(r'MustParse\("1\.(\d+)"\).*?PreRelease:\s*(?:featuregate\.)?(\w+)', body)
        specs = [kind for since, kind in sorted((int(since), kind) for since, kind in specs) if since <= minor]
        name = name.split(".")[-1]
        if specs and specs[-1] in ("Alpha", "Beta"):
            gates.add(names.get(name, name))
    # Without versions, as client-go had it up to 1.34.
    for name, kind in re.findall(r"\n\t+([\w.]+):\s*\{Default: \w+, PreRelease: (\w+)", text):
        if kind in ("Alpha", "Beta"):
            gates.add(names.get(name, name))
    return minor, gates - FIXED


def main():
    releases = dict(map(listed, sys.argv[1:]))
    spans = {}
    for gate in set().union(*releases.values()):
        minors = [minor for minor in sorted(releases) if gate in releases[minor]]
        if minors != list(range(minors[0], minors[-1] + 1)):
            sys.exit(f"{gate} comes and goes: {minors}")
        spans.setdefault((minors[0], minors[-1]), []).append(gate)
    print("//! Printed by `hack/feature-gates.py`, of the releases 1." + ", 1.".join(sys.argv[1:]) + ".\n")
    print("/// First and last minor in which a gate can be set, among those supported.")
    print("pub(super) const GATES: &[crate::spans::Span] = &[")
    for (first, last), gates in sorted(spans.items()):
        print(f"    (\n        {first},\n        {last},\n        &[")
        for gate in sorted(gates):
            print(f'            "{gate}",')
        print("        ],\n    ),")
    print("];")


main()
