#!/usr/bin/env bash
# Builds the operator of the commit before this one and prints its path; of another with STOKER_PREVIOUS_COMMIT=COMMIT.
# Prints nothing where there is no such commit, as in a shallow clone, or where it does not build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

commit=$(git rev-parse --verify --quiet "${STOKER_PREVIOUS_COMMIT:-HEAD~1}^{commit}") || {
  echo "no commit before this one is here; \`git fetch --unshallow\` gets it" >&2
  exit 0
}
mkdir -p "${CARGO_TARGET_DIR:-target}"
ours=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
home=$ours/previous
if [[ ! -e $home/built || $(<"$home/built") != "$commit" ]]; then
  rm -rf "$home"
  mkdir -p "$home/source" "$home/target/debug"
  git archive "$commit" | tar -x -C "$home/source"
  # What is compiled of others' crates serves both. Fingerprints are written in place, so these are copied.
  for part in deps build; do
    if [[ -d $ours/debug/$part ]]; then cp -al "$ours/debug/$part" "$home/target/debug/"; fi
  done
  if [[ -d $ours/debug/.fingerprint ]]; then cp -a "$ours/debug/.fingerprint" "$home/target/debug/"; fi
  if ! (cd "$home/source" && CARGO_TARGET_DIR=$home/target cargo build --quiet --package stoker-operator) >&2; then
    echo "the commit before this one, $commit, does not build" >&2
    exit 0
  fi
  echo "$commit" >"$home/built"
fi
echo "$home/target/debug/stoker-operator"
