# Sourced by the scripts that install what a benchmark needs: `by_apt WHO PACKAGE...` installs the packages as root or
# with sudo, and ends the script with what to do where neither is there.
by_apt() {
  local who=$1 as_root=()
  shift
  if ! command -v apt-get >/dev/null; then
    echo "$who needs $*; there is no apt-get here, install them and repeat." >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
  fi
  echo "Installing by apt: $*"
  "${as_root[@]}" env apt-get update -qq || true
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    --no-install-recommends "$@" >/dev/null ||
    { echo "$who needs root or passwordless sudo to install: $*" >&2; exit 1; }
}
