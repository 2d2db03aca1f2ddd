#!/usr/bin/env bash
# The operator's image: a static binary and nothing else, run as 65532. `hack/image.sh build|push`, IMG names it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${IMG:?set IMG to the name of the image, such as registry.example.com/stoker-operator:v0.1.0}"

target=x86_64-unknown-linux-gnu
case "${1:-}" in
build)
  command -v buildah >/dev/null || { echo "buildah is missing: install it" >&2; exit 1; }
  RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --package stoker-operator --target "$target"
  container=$(buildah --storage-driver vfs from scratch)
  trap 'buildah --storage-driver vfs rm "$container" >/dev/null' EXIT
  buildah --storage-driver vfs copy --quiet "$container" \
    "${CARGO_TARGET_DIR:-target}/$target/release/stoker-operator" /stoker-operator >/dev/null
  buildah --storage-driver vfs config --entrypoint '["/stoker-operator"]' --user 65532:65532 "$container"
  buildah --storage-driver vfs commit --quiet "$container" "$IMG"
  ;;
push) buildah --storage-driver vfs push "$IMG" ;;
*) echo "usage: IMG=NAME hack/image.sh build|push" >&2; exit 2 ;;
esac
