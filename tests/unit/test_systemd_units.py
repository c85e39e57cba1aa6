"""The units that are shipped: systemd understands all of them, and the node's leaves little open."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).resolve().parents[2] / "examples" / "systemd").glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
EXPOSURE = 25
"""Of 100; a unit that says nothing has 96."""

pytestmark = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


@pytest.fixture
def installed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The unit as it is, but for a program that exists here."""
    unit: Path = request.param
    text = re.sub(r"(?m)^ExecStart=/opt/flintlock/.venv/bin/flintctl", f"ExecStart={sys.executable}", unit.read_text())
    assert sys.executable in text
    (tmp_path / unit.name).write_text(text)
    return tmp_path / unit.name


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ANALYZE), *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("installed", UNITS, ids=[unit.stem for unit in UNITS], indirect=True)
def test_systemd_understands_every_line(installed: Path) -> None:
    found = analyze("verify", "--man=no", "--recursive-errors=no", installed)
    assert installed.name not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("installed", [each for each in UNITS if "node" in each.name], ids=["node"], indirect=True)
def test_a_node_is_exposed_to_little(installed: Path) -> None:
    found = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", installed)
    assert found.returncode == 0, found.stdout


def test_a_node_can_renew_its_certificates_where_nothing_else_is_written() -> None:
    unit = next(each for each in UNITS if "node" in each.name).read_text()
    config = re.search(r"(?m)^ExecStart=.* --config (\S+)$", unit)
    assert config is not None
    assert "ProtectSystem=strict" in unit
    assert f"\nReadWritePaths=-{Path(config[1]).parent}\n" in unit
