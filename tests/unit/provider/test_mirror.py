"""The mirror is laid out the same way every time, and the command says what it wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from provider_shim import __version__
from provider_shim.mirror import cli_config, executable_path, lay_out, main


def test_the_layout_is_terraforms_and_its_bytes_are_stable(tmp_path: Path) -> None:
    python = Path(sys.executable)
    first, second = lay_out(tmp_path / "a", python), lay_out(tmp_path / "b", python)
    assert first.relative_to(tmp_path / "a") == Path(
        f"registry.terraform.io/microscaler/flintlock/{__version__}/linux_amd64/terraform-provider-flintlock_v{__version__}"
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in first.parent.iterdir()] == [first.name]
    inode = first.stat().st_ino
    assert lay_out(tmp_path / "a", python).stat().st_ino == inode


def test_a_python_with_blanks_is_quoted(tmp_path: Path) -> None:
    python = tmp_path / "my python; rm"
    python.symlink_to(sys.executable)
    assert f"exec '{python}' -I -m provider_shim" in lay_out(tmp_path / "m", python).read_text()


def test_a_missing_python_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError):
        lay_out(tmp_path, tmp_path / "none")
    assert main([str(tmp_path / "m"), "--python", str(tmp_path / "none")]) == 1
    assert "no Python at" in capsys.readouterr().err


def test_the_command_prints_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert Path(written["executable"]) == executable_path(tmp_path)
    assert f'path    = "{tmp_path}"' in Path(written["cli_config"]).read_text()
    assert main([str(tmp_path)]) == 0
    assert f"export TF_CLI_CONFIG_FILE={tmp_path}/terraform.rc" in capsys.readouterr().out


def test_the_cli_configuration_leaves_other_providers_alone(tmp_path: Path) -> None:
    text = cli_config(tmp_path / 'quo"te', tmp_path / "rc").read_text()
    assert 'exclude = ["registry.terraform.io/microscaler/*"]' in text
    assert 'quo\\"te' in text
