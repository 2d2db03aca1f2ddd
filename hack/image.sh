#!/usr/bin/env bash
# The images of the operator (IMG), the warden (WARDEN_IMG), stoker-node (NODE_IMG) and, where it is named, the gateway
# (GATEWAY_IMG): a static binary each and nothing else, run as 65532.
# `hack/image.sh build|push`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${IMG:?set IMG to the name of the image of the operator, such as registry.example.com/stoker-operator:v0.1.0}"
: "${WARDEN_IMG:?set WARDEN_IMG to the name of the image of the warden, such as registry.example.com/stoker-warden:v0.1.0}"
: "${NODE_IMG:?set NODE_IMG to the name of the image of stoker-node, such as registry.example.com/stoker-node:v0.1.0}"

target=x86_64-unknown-linux-gnu
# image BINARY NAME
image() {
  local container
  container=$(buildah --storage-driver vfs from scratch)
  buildah --storage-driver vfs copy --quiet "$container" \
    "${CARGO_TARGET_DIR:-target}/$target/release/$1" "/$1" >/dev/null
  buildah --storage-driver vfs config --entrypoint "[\"/$1\"]" --user 65532:65532 "$container"
  buildah --storage-driver vfs commit --quiet --rm "$container" "$2"
}
case "${1:-}" in
build)
  command -v buildah >/dev/null || { echo "buildah is missing: install it" >&2; exit 1; }
  for package in stoker-operator stoker-warden stoker-node ${GATEWAY_IMG:+stoker-gateway}; do
    # One by one, as the lab builds them: together each would get the others' features.
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --package "$package" --target "$target"
  done
  image stoker-operator "$IMG"
  image stoker-warden "$WARDEN_IMG"
  image stoker-node "$NODE_IMG"
  if [[ -n "${GATEWAY_IMG:-}" ]]; then image stoker-gateway "$GATEWAY_IMG"; fi
  ;;
push)
  buildah --storage-driver vfs push "$IMG"
  buildah --storage-driver vfs push "$WARDEN_IMG"
  buildah --storage-driver vfs push "$NODE_IMG"
  if [[ -n "${GATEWAY_IMG:-}" ]]; then buildah --storage-driver vfs push "$GATEWAY_IMG"; fi
  ;;
*) echo "usage: IMG=NAME WARDEN_IMG=NAME NODE_IMG=NAME [GATEWAY_IMG=NAME] hack/image.sh build|push" >&2; exit 2 ;;
esac
