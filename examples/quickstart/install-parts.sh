#!/usr/bin/env bash
# Installs what real guests need: QEMU, a guest kernel, busybox and the tools that pack images. Does nothing when all of
# it is there. Without root, sudo or apt it says what is missing and succeeds: the simulated driver is used then, loudly.
# With --tests also what the tests of the image store and of the log need.
set -euo pipefail

# Many machines have a busybox that needs a C library, which a guest has not.
static_busybox() {
  local path
  path=$(command -v busybox) && ! grep -q /lib64/ld-linux "$path"
}

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
static_busybox || missing+=(busybox-static)
{ command -v modinfo || test -x /sbin/modinfo; } >/dev/null || missing+=(kmod)
{ command -v mke2fs || test -x /sbin/mke2fs; } >/dev/null || missing+=(e2fsprogs)
command -v ip >/dev/null || test -x /sbin/ip || missing+=(iproute2)
compgen -G '/boot/vmlinuz-*-amd64' >/dev/null || compgen -G '/boot/vmlinuz-*-virtual' >/dev/null ||
  compgen -G '/boot/vmlinuz-*-generic' >/dev/null || missing+=(kernel)
# Ubuntu packs the modules of its kernels by zstd.
if grep -qs '^ID=ubuntu$' /etc/os-release && ! command -v zstd >/dev/null; then missing+=(zstd); fi
if [ "${1:-}" = --tests ]; then
  for tool in skopeo umoci docker-registry; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  command -v nft >/dev/null || test -x /usr/sbin/nft || missing+=(nftables)
  test -e "/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1" || missing+=(libfaketime)
fi
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    echo "Real guests need: ${missing[*]}. Neither root nor passwordless sudo is there to install them." >&2
    exit 0
  fi
fi
if ! command -v apt-get >/dev/null; then
  echo "Real guests need: ${missing[*]}. There is no apt-get here; install them with this system's package manager." >&2
  exit 0
fi

echo "Installing by apt: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
packages=()
for name in "${missing[@]}"; do
  if [ "$name" = kernel ]; then
    # Debian's cloud kernel is small and has virtio; Ubuntu's counterpart is the virtual one.
    if apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then name=linux-image-cloud-amd64; else name=linux-image-virtual; fi
  fi
  packages+=("$name")
done
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
