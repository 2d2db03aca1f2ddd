#!/usr/bin/env bash
# Formatting, clippy with our lints as errors, generated files, licences where cargo-deny is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
cargo clippy --quiet --workspace --all-targets -- -D warnings
cargo xtask gen --check
RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links" cargo doc --quiet --no-deps --workspace
if command -v cargo-deny >/dev/null; then
  # Advisories need a database from outside.
  cargo deny --offline check bans licenses sources
fi

for script in hack/*.sh .ci/run; do bash -n "$script"; done
# A suite that does not exist is not a suite that passed.
if hack/test.sh no-such-suite 2>/dev/null; then exit 1; fi
