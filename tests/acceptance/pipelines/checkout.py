"""A runner's machine: a fresh checkout of the example, the programs on its PATH, and only the variables of its job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from acceptance.terraform.runner import LIBRARY_MAIN, has_path_terraform

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "pipelines"
PARTS = ("fleet", "policy", "bin")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Done:
    code: int
    output: str
    """Standard output and error together."""


@dataclass(frozen=True)
class Machine:
    """Where jobs of one pipeline run; `variables` are what its administrator has set up."""

    directory: Path
    programs: Path
    variables: Mapping[str, str]

    def run(self, script: str, variables: Mapping[str, str], *, shell: str = "bash", within: str = ".") -> Done:
        environment = {"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": str(self.directory), "LANG": "C.UTF-8"}
        done = subprocess.run(
            [shell, "-e", "-c", script],
            cwd=self.directory / within,
            env={**environment, **self.variables, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout)

    @property
    def reports(self) -> Path:
        return self.directory / "reports"


def checkout(directory: Path, programs: Path, variables: Mapping[str, str], reports: Path | None = None) -> Machine:
    """What the repository holds, and nothing else; `reports`: the artifacts of an earlier job."""
    for part in PARTS:
        shutil.copytree(EXAMPLES / part, directory / part)
    machine = Machine(directory, programs, variables)
    if reports is not None:
        shutil.copytree(reports, machine.reports)
    return machine


def install_programs(directory: Path) -> Path:
    """flintctl, terraform and conftest, as the pipelines call them."""
    directory.mkdir()
    write_program(directory / "flintctl", f'exec "{sys.executable}" -m controlplane.cli.main "$@"')
    write_program(directory / "conftest", f'exec "{sys.executable}" "{Path(__file__).parent / "rego.py"}" "$@"')
    if not has_path_terraform():
        (directory / "terraform.py").write_text(LIBRARY_MAIN, encoding="utf-8")
        write_program(directory / "terraform", f'exec "{sys.executable}" "{directory / "terraform.py"}" "$@"')
    return directory


def write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
