"""A release of the provider as registries and mirrors take it: one zip that needs nothing but a Python.

    terraform-provider-flintlock_VERSION_OS_ARCH.zip      the executable, and `lib/` with our code and all it needs
    terraform-provider-flintlock_VERSION_manifest.json    that it speaks protocol 6
    terraform-provider-flintlock_VERSION_SHA256SUMS       of both

What it needs is copied from the environment that runs this, so a release is for that platform and that minor version
of Python; the executable, a few lines of shell, looks for it and says so where it is missing. Equal environments give
equal bytes. Nothing is ever written beside the executable: compiled code goes into the user's cache, since Terraform
compares the package's hash on every `init`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from provider_shim import PROVIDER_NAME, __version__

DISTRIBUTION = "flintlock-provider"
NAME = f"terraform-provider-{PROVIDER_NAME}"
MANIFEST = {"version": 1, "metadata": {"protocol_versions": ["6.0"]}}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_INSTALLERS_OWN = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ENTRY = "from provider_shim.__main__ import main\n\nmain()\n"


class ReleaseError(Exception):
    """This environment gives no release."""


def system() -> str:
    """`linux_amd64`, as registries call it. Raises ReleaseError."""
    architecture = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or architecture is None:
        raise ReleaseError(f"releases are made on Linux, x86_64 or aarch64, not on {sys.platform} {platform.machine()}")
    return f"linux_{architecture}"


def launcher(python: str, digest: str) -> str:
    """The executable. `python` is a name on PATH, such as `python3.11`; `digest` tells this `lib` from any other.

    -I -S: neither the working directory, the environment nor what else is installed comes before our own `lib`.
    """
    return (
        "#!/bin/sh\n"
        f'python="${{FLINTLOCK_PROVIDER_PYTHON:-{python}}}"\n'
        'if ! command -v "$python" >/dev/null 2>&1; then\n'
        f'  echo "the Flintlock provider needs {python}: install it, or name it in FLINTLOCK_PROVIDER_PYTHON" >&2\n'
        "  exit 1\n"
        "fi\n"
        'cache="${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}"\n'
        # Never below /tmp, where others could put code in front of ours.
        f'if [ -n "$cache" ]; then compiled="-Xpycache_prefix=$cache/{NAME}/{digest}"; else compiled=-B; fi\n'
        'exec "$python" -I -S "$compiled" "$(dirname "$0")/lib" "$@"\n'
    )


def build(directory: Path) -> list[Path]:
    """Write the release's files and return them. Raises ReleaseError and OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"{NAME}_{__version__}_{system()}.zip"
    manifest = directory / f"{NAME}_{__version__}_manifest.json"
    sums = directory / f"{NAME}_{__version__}_SHA256SUMS"
    fresh = archive.with_suffix(".new")
    _write_archive(fresh)
    fresh.replace(archive)
    manifest.write_text(json.dumps(MANIFEST) + "\n", encoding="utf-8")
    # A directory may hold archives of several platforms, each made on its own.
    summed = [*sorted(directory.glob(f"{NAME}_{__version__}_*.zip")), manifest]
    sums.write_text("".join(f"{_sha256(each)}  {each.name}\n" for each in summed), encoding="utf-8")
    return [archive, manifest, sums]


def _write_archive(path: Path) -> None:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    seen = hashlib.sha256()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "lib/__main__.py", _ENTRY.encode())
        for name, file in sorted(_needed()):
            content = file.read_bytes()
            seen.update(f"{name} {len(content)}\n".encode() + content)
            _add(archive, f"lib/{name}", content)
        _add(archive, f"{NAME}_v{__version__}", launcher(python, seen.hexdigest()[:16]).encode(), mode=0o755)


def _add(archive: zipfile.ZipFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, whose modes these are
    entry.external_attr = (0o100000 | mode) << 16
    archive.writestr(entry, content)


def _needed() -> Iterator[tuple[str, Path]]:
    """Our package, and every file of what it depends on: the path in `lib`, and the file."""
    package = Path(__file__).parent
    for file in package.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(package.parent).as_posix(), file
    for distribution in _dependencies():
        for file in distribution.files or ():
            if file.suffix != ".pyc" and ".." not in file.parts and file.name not in _INSTALLERS_OWN:
                yield file.as_posix(), Path(str(distribution.locate_file(file)))


def _dependencies() -> list[metadata.Distribution]:
    """Of our distribution, transitively and without extras. Raises ReleaseError."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [DISTRIBUTION]
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise ReleaseError(f"{name} is not installed here") from None
        for requirement in found[name].requires or ():
            needed, _, marker = requirement.partition(";")
            # What a marker leaves to the platform is taken where it is installed.
            if "extra" not in marker and (not marker or _is_installed(_name(needed))):
                wanted.append(_name(needed))
    del found[DISTRIBUTION]
    return list(found.values())


def _name(requirement: str) -> str:
    matched = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert matched is not None, requirement
    return matched[0]


def _is_installed(name: str) -> bool:
    return next(iter(metadata.distributions(name=name)), None) is not None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m provider_shim.release", description="Write a release.")
    parser.add_argument("directory", type=Path, help="where its files go; made if missing")
    chosen = parser.parse_args(arguments)
    try:
        written = build(chosen.directory)
    except (ReleaseError, OSError) as problem:
        sys.stderr.write(f"no release was made: {problem}\n")
        return 1
    sys.stdout.write("".join(f"{each}\n" for each in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
