#!/usr/bin/env bash
# What `make bench-etcd` needs beyond the development environment: a C compiler with nghttp2 and OpenSSL for the load
# generator, installed by apt when root or sudo is there, and Debian's etcd, which is only unpacked into .cache so that
# no service of that name starts on this machine. Does nothing when all of it is there.
set -euo pipefail

cache=.cache/bench-etcd
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
test -e /usr/include/nghttp2/nghttp2.h || missing+=(libnghttp2-dev)
test -e /usr/include/openssl/ssl.h || missing+=(libssl-dev)
etcd=$(command -v etcd || true)
if [ -z "$etcd" ] && [ ! -x "$cache/usr/bin/etcd" ]; then etcd=wanted; else etcd=; fi
if [ ${#missing[@]} -eq 0 ] && [ -z "$etcd" ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
  echo "bench-etcd needs ${missing[*]} ${etcd:+etcd-server 3.4}; there is no apt-get here, install them and repeat." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
fi
"${as_root[@]}" env apt-get update -qq || true
if [ ${#missing[@]} -ne 0 ]; then
  echo "Installing by apt: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null || { echo "bench-etcd needs root or passwordless sudo to install: ${missing[*]}" >&2; exit 1; }
fi
if [ -n "$etcd" ]; then
  echo "Unpacking etcd-server into $cache"
  mkdir -p "$cache/packages"
  (cd "$cache/packages" && apt-get download -qq etcd-server) ||
    { echo "bench-etcd needs the package etcd-server: put an etcd 3.4 or newer on PATH and repeat." >&2; exit 1; }
  dpkg-deb -x "$cache"/packages/etcd-server_*.deb "$cache"
fi
