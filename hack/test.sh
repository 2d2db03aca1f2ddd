#!/usr/bin/env bash
# Every test, fastest first, each suite with its minutes and its budget. A suite over its budget is said so and does not
# fail: machines are shared. `hack/test.sh SUITE…` runs only those.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

began=$SECONDS
report=() left=()
# suite NAME BUDGET_MINUTES COMMAND…
suite() {
  local name=$1 budget=$2 start=$SECONDS
  shift 2
  if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
  echo "=== $name (budget $budget min)"
  "$@"
  local took=$((SECONDS - start)) note=""
  ((took > budget * 60)) && note=" OVER BUDGET"
  report+=("$(printf '%-12s %3d:%02d of %d min%s' "$name" $((took / 60)) $((took % 60)) "$budget" "$note")")
}
wanted=("$@")
suites=$(sed -n 's/^suite \([a-z]*\) .*/\1/p' hack/test.sh | tr '\n' ' ')
for name in "$@"; do
  if [[ " $suites " != *" $name "* ]]; then
    echo "no suite $name; there are: $suites" >&2
    exit 2
  fi
done

e2e() { for test in "$@"; do cargo test --quiet --package e2e --test "$test" -- --nocapture --test-threads="${threads:-2}" || return; done; }
suites_of() { local file; for file in e2e/tests/"$1"*.rs; do basename "$file" .rs; done; }

upstream() { cargo run --quiet --package stoker-lab -- build; }
unit() { cargo test --quiet --workspace --exclude e2e; }
etcd() { e2e $(suites_of etcd_); }
api() { e2e $(suites_of crd_) $(suites_of kube_); }
tunnel() { e2e $(suites_of tunnel_); }
# Some suites mostly wait, for API servers that look at their files once a minute or that nobody asks for one: beside the
# others, and shown after them.
operator() {
  local waiting=(operator_configuration operator_encryption operator_idle) other=() name log beside=0
  for name in $(suites_of operator_); do
    [[ " ${waiting[*]} " == *" $name "* ]] || other+=("$name")
  done
  cargo build --quiet --package stoker-operator
  cargo test --quiet --package e2e --no-run
  log=$(mktemp)
  e2e "${waiting[@]}" >"$log" 2>&1 &
  local suites=$!
  e2e "${other[@]}" || beside=$?
  wait "$suites" || beside=$?
  cat "$log"
  rm "$log"
  return "$beside"
}
gateway() { e2e gateway; }
# What is shipped, built as it is shipped: the labs after it run these programs. Not where upstream components had to be
# built first: then CI's wall is too near, and the labs run what the tests before them were built from, only static.
optimised=1
release() {
  if ((SECONDS - began > 45 * 60)); then
    echo "left out: it is late; hack/test.sh release has it"
    optimised=0
    return
  fi
  local name=localhost/stoker-test
  IMG=$name/operator WARDEN_IMG=$name/warden NODE_IMG=$name/node GATEWAY_IMG=$name/gateway hack/image.sh build || return
  buildah --storage-driver vfs rmi "$name"/{operator,warden,node,gateway} >/dev/null
}
development() {
  local package name target=${CARGO_TARGET_DIR:-target}
  mkdir -p "$target/static"
  for package in stoker-operator stoker-warden stoker-node stoker-gateway; do
    cargo rustc --quiet --package "$package" --bin "$package" -- -C target-feature=+crt-static || return
    cp --remove-destination "$target/debug/$package" "$target/static/$package" || return
    name=${package^^}
    export "${name/-/_}=$(realpath "$target/static/$package")"
  done
}
lab() {
  if ((!optimised)); then development || return; fi
  local test
  for test in $(suites_of lab_); do
    # A run that CI's wall cuts off says nothing at all.
    if ((SECONDS - began > 76 * 60)); then
      echo "left out: $test, it is late; hack/test.sh lab has it"
      left+=("$test")
      continue
    fi
    threads=1 e2e "$test" || return
  done
}

suite lint 15 hack/lint.sh
suite upstream 25 upstream
suite unit 10 unit
suite etcd 5 etcd
suite api 5 api
suite tunnel 5 tunnel
suite operator 26 operator
suite gateway 6 gateway
suite release 15 release
suite lab 40 lab

printf '%s\n' "--- minutes by suite" "${report[@]}" "total $(((SECONDS - began) / 60)) min"
((${#left[@]} == 0)) || echo "LEFT OUT: ${left[*]}"
