"""Lays the provider out where a plain `terraform init` finds it: a filesystem mirror and a CLI configuration.

The executable is two lines of shell that start a given Python; the code stays outside of the mirror, because whatever
is written beside the executable (a `__pycache__`) changes the package's hash and breaks the next `init`. The bytes
depend on the Python's path alone. Standard library only: it runs before anything is set up.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from provider_shim import PROVIDER_HOST, PROVIDER_NAME, PROVIDER_NAMESPACE, __version__

PLATFORM = "linux_amd64"


def executable_path(mirror_dir: Path) -> Path:
    package = mirror_dir / PROVIDER_HOST / PROVIDER_NAMESPACE / PROVIDER_NAME / __version__ / PLATFORM
    return package / f"terraform-provider-{PROVIDER_NAME}_v{__version__}"


def lay_out(mirror_dir: Path, python: Path) -> Path:
    """Write the mirror and return the executable. Writing it again changes nothing.

    `python` is the interpreter of the environment that has `provider_shim`; it is not resolved, so that a virtual
    environment's link stays one. Raises FileNotFoundError if it is not there.
    """
    python = Path(os.path.abspath(python))  # noqa: PTH100 - absolute, links unresolved
    if not python.exists():
        raise FileNotFoundError(f"no Python at {python}")
    executable = executable_path(mirror_dir)
    executable.parent.mkdir(parents=True, exist_ok=True)
    # -I: neither the working directory nor PYTHONPATH may put another provider_shim in front of ours.
    text = f'#!/bin/sh\nexec {shlex.quote(str(python))} -I -m provider_shim "$@"\n'
    if not executable.exists() or executable.read_text(encoding="utf-8") != text:
        # Terraform may be running the old one: replace the file, never rewrite it.
        fresh = executable.parent.parent / f".{executable.name}.{os.getpid()}"
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o755)
        fresh.replace(executable)
    executable.chmod(0o755)
    return executable


def cli_config(mirror_dir: Path, path: Path) -> Path:
    """Write a Terraform CLI configuration that takes our provider from the mirror and all others from their
    registry.
    """
    source = f"{PROVIDER_HOST}/{PROVIDER_NAMESPACE}/*"
    text = (
        "provider_installation {\n"
        "  filesystem_mirror {\n"
        f"    path    = {json.dumps(str(mirror_dir.absolute()), ensure_ascii=False)}\n"
        f"    include = [{json.dumps(source)}]\n"
        "  }\n"
        "  direct {\n"
        f"    exclude = [{json.dumps(source)}]\n"
        "  }\n"
        "}\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m provider_shim.mirror",
        description="Write a filesystem mirror with the Flintlock provider, so that `terraform init` finds it.",
    )
    parser.add_argument("directory", type=Path, help="the mirror's directory; made if missing")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the Python to start (default: this one)"
    )
    parser.add_argument(
        "--cli-config", type=Path, help="the CLI configuration to write (default: DIRECTORY/terraform.rc)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    chosen = parser.parse_args(arguments)
    config_path: Path = chosen.cli_config or chosen.directory / "terraform.rc"
    try:
        executable = lay_out(chosen.directory, chosen.python)
        config = cli_config(chosen.directory, config_path)
    except OSError as problem:
        sys.stderr.write(f"cannot lay out the provider: {problem}\n")
        return 1
    if chosen.json:
        made = {
            "version": __version__,
            "mirror": str(chosen.directory.absolute()),
            "executable": str(executable.absolute()),
            "cli_config": str(config.absolute()),
        }
        sys.stdout.write(json.dumps(made) + "\n")
    else:
        sys.stdout.write(
            f"provider {__version__} is at {executable}\n"
            f"export TF_CLI_CONFIG_FILE={shlex.quote(str(config.absolute()))}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
