"""A release is one zip that needs nothing but a Python, with the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from provider_shim import __version__, release
from provider_shim.release import NAME, build, launcher, main, system

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("release")
    assert main([str(directory)]) == 0
    return directory


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable, as Terraform unpacks it."""
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built / f"{NAME}_{__version__}_{system()}.zip") as archive:
        archive.extractall(directory)
    executable = directory / f"{NAME}_v{__version__}"
    executable.chmod(0o755)
    return executable


def run(executable: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        [executable, *arguments],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_files_are_those_of_a_registry(built: Path) -> None:
    stem = f"{NAME}_{__version__}"
    assert {each.name for each in built.iterdir()} == {
        f"{stem}_{system()}.zip",
        f"{stem}_manifest.json",
        f"{stem}_SHA256SUMS",
    }
    assert json.loads((built / f"{stem}_manifest.json").read_text())["metadata"]["protocol_versions"] == ["6.0"]
    for line in (built / f"{stem}_SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((built / name).read_bytes()).hexdigest() == digest


def test_equal_environments_give_equal_bytes(built: Path, tmp_path: Path) -> None:
    for each in build(tmp_path):
        assert each.read_bytes() == (built / each.name).read_bytes(), each.name


def test_it_runs_without_the_environment_it_came_from_and_writes_nothing_beside_itself(
    unpacked: Path, tmp_path: Path
) -> None:
    before = sorted(unpacked.parent.rglob("*"))
    assert run(unpacked, "--version", HOME=str(tmp_path)).stdout == f"terraform-provider-flintlock {__version__}\n"
    # The whole way to the handshake, with what compiled code there is now.
    cookie = {"TF_PLUGIN_MAGIC_COOKIE": "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"}
    started = subprocess.Popen(
        [unpacked],
        env={"PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), **cookie},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline().startswith("1|6|unix|")
    finally:
        started.kill()
        started.communicate()
    assert sorted(unpacked.parent.rglob("*")) == before
    assert list((tmp_path / ".cache" / NAME).rglob("*.pyc"))


def test_without_a_home_nothing_is_kept(unpacked: Path) -> None:
    assert run(unpacked, "--version").returncode == 0
    assert not list(unpacked.parent.rglob("*.pyc"))


def test_a_missing_python_is_named(unpacked: Path) -> None:
    done = run(unpacked, FLINTLOCK_PROVIDER_PYTHON="python0.1")
    assert done.returncode == 1
    assert f"needs {PYTHON}: install it, or name it in FLINTLOCK_PROVIDER_PYTHON" in done.stderr


def test_other_code_has_another_place_for_what_is_compiled() -> None:
    assert launcher(PYTHON, "a" * 16) != launcher(PYTHON, "b" * 16)


def test_another_platform_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release.platform, "machine", lambda: "riscv64")
    assert main([str(tmp_path)]) == 1
    assert "not on linux riscv64" in capsys.readouterr().err
