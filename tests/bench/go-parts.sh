#!/usr/bin/env bash
# What `make bench-terraform` needs to build a provider in Go: Debian's compiler, and its packages of what Terraform's
# own providers are made of. Does nothing when all of it is there.
set -euo pipefail
. "$(dirname "$0")/apt.sh"

missing=()
command -v go >/dev/null || missing+=(golang-go)
command -v protoc >/dev/null || missing+=(protobuf-compiler)
sources=/usr/share/gocode/src
test -d "$sources/github.com/hashicorp/go-plugin" || missing+=(golang-github-hashicorp-go-plugin-dev)
test -d "$sources/github.com/zclconf/go-cty" || missing+=(golang-github-zclconf-go-cty-dev)
test -d "$sources/google.golang.org/grpc" || missing+=(golang-google-grpc-dev)
command -v protoc-gen-go >/dev/null || missing+=(golang-goprotobuf-dev)
if [ ${#missing[@]} -ne 0 ]; then by_apt bench-terraform "${missing[@]}"; fi
