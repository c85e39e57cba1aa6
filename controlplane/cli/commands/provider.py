"""flintctl provider install: lays the Terraform provider out so that plain `terraform init` finds it.

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


def lay_out(target: Path) -> Json:
    """Fill `target`; gives what was written, by name. Raises CliError."""
    command = [sys.executable, "-m", "provider_shim.mirror", str(target), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CliError(f"laying out the provider took over {TIMEOUT_S} s") from None
    if done.returncode != 0:
        if "No module named" in done.stderr:
            raise CliError(
                "the provider is not installed beside flintctl", hint="pip install --no-deps -e provider-shim"
            )
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise CliError(f"the provider could not be laid out in {target}: {last[0]}")
    try:
        return mapping(json.loads(done.stdout))
    except json.JSONDecodeError:
        raise CliError(f"the provider's answer is not JSON: {done.stdout[:200]!r}") from None
