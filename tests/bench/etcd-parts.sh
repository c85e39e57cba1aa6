#!/usr/bin/env bash
# What `make bench-etcd` needs beyond the development environment: a C compiler with nghttp2 and OpenSSL for the load
# generator, installed by apt when root or sudo is there, and Debian's etcd, which is only unpacked into .cache so that
# no service of that name starts on this machine. Does nothing when all of it is there.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

cache=.cache/bench-etcd
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
test -e /usr/include/nghttp2/nghttp2.h || missing+=(libnghttp2-dev)
test -e /usr/include/openssl/ssl.h || missing+=(libssl-dev)
if [ ${#missing[@]} -ne 0 ]; then by_apt bench-etcd "${missing[@]}"; fi

if command -v etcd >/dev/null || [ -x "$cache/usr/bin/etcd" ]; then exit 0; fi
echo "Unpacking etcd-server into $cache"
mkdir -p "$cache/packages"
(cd "$cache/packages" && apt-get download -qq etcd-server) ||
  { echo "bench-etcd needs the package etcd-server: put an etcd 3.4 or newer on PATH and repeat." >&2; exit 1; }
dpkg-deb -x "$cache"/packages/etcd-server_*.deb "$cache"
