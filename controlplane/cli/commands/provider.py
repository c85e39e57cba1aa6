"""flintctl provider: lays the Terraform provider out so that plain `terraform init` finds it, or writes a release.

The provider is a distribution of its own that this one never imports; its own module does the work in a subprocess.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import options
from controlplane.cli.errors import CliError
from controlplane.cli.values import Json, mapping

DEFAULT_MIRROR = Path("~/.local/share/flintlock/terraform-mirror")
TIMEOUT_S = 60

app = options.new_app("The Terraform provider.")


@app.callback()
def _app() -> None:
    """The Terraform provider."""


@app.command()
def install(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where the mirror goes.", show_default=True)
    ] = DEFAULT_MIRROR,
) -> None:
    """Lay out a filesystem mirror with the provider, and a Terraform CLI configuration that uses it."""
    target = directory.expanduser().resolve()
    laid_out = lay_out(target)
    print(f"The provider lies in {laid_out.get('mirror', target)}.")
    config = laid_out.get("cli_config")
    if config:
        print(f"\nUse it in this shell:\n  export TF_CLI_CONFIG_FILE={config}\n")
    print(
        "Then, in a directory with:\n"
        '  terraform {\n    required_providers { flintlock = { source = "microscaler/flintlock" } }\n  }\n'
        "run:\n  terraform init"
    )


@app.command()
def release(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the files go, such as a node's providers_dir.")
    ],
) -> None:
    """Write a release of the provider, for this platform: what nodes, registries and mirrors offer."""
    target = directory.expanduser().resolve()
    print(_run("provider_shim.release", str(target), failed=f"no release was written to {target}"), end="")


def lay_out(target: Path) -> Json:
    """Fill `target`; gives what was written, by name. Raises CliError."""
    written = _run(
        "provider_shim.mirror", str(target), "--json", failed=f"the provider could not be laid out in {target}"
    )
    try:
        return mapping(json.loads(written))
    except json.JSONDecodeError:
        raise CliError(f"the provider's answer is not JSON: {written[:200]!r}") from None


def _run(module: str, *arguments: str, failed: str) -> str:
    """What a module of the provider prints. Raises CliError, which begins with `failed` where the module failed."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CliError(f"{failed}: it took over {TIMEOUT_S} s") from None
    if done.returncode != 0:
        if "No module named" in done.stderr:
            raise CliError(
                "the provider is not installed beside flintctl", hint="pip install --no-deps -e provider-shim"
            )
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise CliError(f"{failed}: {last[0]}")
    return done.stdout
