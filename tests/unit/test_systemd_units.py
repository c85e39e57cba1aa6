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
EXPOSURE = {"flintlock-node": 25, "flintlock-agent": 65}
"""Of 100; a unit that says nothing has 96. What an agent starts has to see the machine as it is."""

needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


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


@needs_analyze
@pytest.mark.parametrize("installed", UNITS, ids=[unit.stem for unit in UNITS], indirect=True)
def test_systemd_understands_every_line(installed: Path) -> None:
    found = analyze("verify", "--man=no", "--recursive-errors=no", installed)
    assert installed.name not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr


@needs_analyze
@pytest.mark.parametrize("installed", UNITS, ids=[unit.stem for unit in UNITS], indirect=True)
def test_each_is_exposed_to_little(installed: Path) -> None:
    threshold = f"--threshold={EXPOSURE[installed.stem]}"
    found = analyze("security", "--offline=true", threshold, "--no-pager", installed)
    assert found.returncode == 0, found.stdout


def test_a_node_can_renew_its_certificates_where_nothing_else_is_written() -> None:
    unit = next(each for each in UNITS if "node" in each.name).read_text()
    config = re.search(r"(?m)^ExecStart=.* --config (\S+)$", unit)
    assert config is not None
    assert "ProtectSystem=strict" in unit
    assert f"\nReadWritePaths=-{Path(config[1]).parent}\n" in unit


@pytest.mark.parametrize("unit", UNITS, ids=[unit.stem for unit in UNITS])
def test_none_is_root_and_an_agent_has_one_privilege(unit: Path) -> None:
    said = dict(re.findall(r"(?m)^(\w+)=(.*)$", unit.read_text()))
    assert said["User"].startswith("flintlock")
    privileges = "CAP_NET_ADMIN" if "agent" in unit.name else ""
    assert (said["CapabilityBoundingSet"], said.get("AmbientCapabilities", "")) == (privileges, privileges)
    assert said["NoNewPrivileges"] == "yes"
