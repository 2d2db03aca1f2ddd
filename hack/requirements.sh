#!/usr/bin/env bash
# What building needs before cargo can start: protoc with its standard files, for the etcd client. Everything else is
# installed by the lab itself when it is needed.
set -euo pipefail

need() { echo "$1 is missing: $2" >&2; exit 1; }
command -v cargo >/dev/null || need cargo "install Rust 1.95 or newer with rustup or from your distribution"
command -v cc >/dev/null || command -v gcc >/dev/null || need "a C compiler" "install gcc"

if ! command -v protoc >/dev/null || ! [ -e /usr/include/google/protobuf/descriptor.proto ]; then
  if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    need "protoc with its standard files" "install protobuf-compiler and libprotobuf-dev (or run as root on Debian)"
  fi
  echo "installing protobuf-compiler and libprotobuf-dev" >&2
  export DEBIAN_FRONTEND=noninteractive
  # One source of several that is away fails the update and need not matter.
  apt-get update -qq || echo "apt-get update failed; trying with the package lists that are there" >&2
  apt-get install -y -qq --no-install-recommends protobuf-compiler libprotobuf-dev >/dev/null
fi
