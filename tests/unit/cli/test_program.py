"""flintctl as a program of its own: start, pipes, Ctrl-C, completion, help that teaches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.api.rig import Rig

FLINTCTL = [sys.executable, "-m", "controlplane.cli.main"]


def _run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FLINTCTL, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)


def test_version_and_help_are_printed(tmp_path: Path) -> None:
    assert _run("version").stdout.startswith("flintctl 0.")
    for command in ([], ["vm"], ["apply"], ["dev"], ["image"], ["host"], ["drift"], ["watch"]):
        shown = _run(*command, "--help")
        assert shown.returncode == 0
        assert "flintctl" in shown.stdout
        assert "Example" in shown.stdout or "First steps" in shown.stdout or "Classes" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = _run("completion", shell)
    assert done.returncode == 0
    assert "_FLINTCTL_COMPLETE" in done.stdout


def test_completion_completes() -> None:
    environ = {**os.environ, "_FLINTCTL_COMPLETE": "complete_bash", "COMP_WORDS": "flintctl vm re", "COMP_CWORD": "2"}
    assert _run(env=environ).stdout.split() == ["resume", "restart", "repair"]


def test_ctrl_c_ends_a_watch_quietly(cli: Callable[..., Any], api: Rig, tmp_path: Path) -> None:
    api.with_host()
    with (tmp_path / "out").open("w") as out:
        watching = subprocess.Popen(
            [*FLINTCTL, "watch", "--from", "0"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background of a shell, ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads are started
        )
        give_up = time.monotonic() + 30
        while not (tmp_path / "out").read_text():
            assert time.monotonic() < give_up
            time.sleep(0.02)
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, "")


def test_reader_that_has_seen_enough_is_no_error(cli: Callable[..., Any], api: Rig) -> None:
    api.with_host()
    for number in range(30):
        api.put_vm(f"vm{number}")
    shown = subprocess.run(
        ["sh", "-c", f"{' '.join(FLINTCTL)} vm list -o json | head -n 1"], capture_output=True, text=True, check=True
    )
    assert (shown.stdout, shown.stderr) == ("{\n", "")


def test_provider_is_laid_out_for_plain_terraform_init(tmp_path: Path) -> None:
    done = _run("provider", "install", "--dir", str(tmp_path / "mirror"))
    assert done.returncode == 0, done.stderr
    assert f"export TF_CLI_CONFIG_FILE={tmp_path}/mirror/terraform.rc" in done.stdout
    assert "terraform init" in done.stdout
    (executable,) = (tmp_path / "mirror").rglob("terraform-provider-flintlock_v*")
    assert os.access(executable, os.X_OK)
