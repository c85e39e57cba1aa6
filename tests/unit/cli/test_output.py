"""What is printed: aligned, safe for a terminal, and the same facts in every format."""

from __future__ import annotations

import json

import pytest
import yaml

from controlplane.cli import columns, output
from controlplane.cli.output import OutputFormat


def test_columns_line_up_and_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A", "LONG-HEADER"], [["x\x1b[31m", ""], ["日本", "y\nz"]], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0] == "A        LONG-HEADER"
    assert lines[1] == "x [31m   -"
    assert lines[2] == "日本     y z"


def test_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["PHASE"], [["running"], ["failed"]], empty="none")
    assert capsys.readouterr().out == "PHASE\nrunning\nfailed\n"


@pytest.mark.parametrize("form", [OutputFormat.JSON, OutputFormat.YAML])
def test_documents_survive(form: OutputFormat, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "metadata": {"user-data": "#cloud-config\nruncmd:\n  - x\n"},
        "since": "2026-11-22T20:08:18.123Z",
        "n": None,
    }
    output.dump(document, form)
    printed = capsys.readouterr().out
    assert (json.loads if form is OutputFormat.JSON else yaml.safe_load)(printed) == document
    if form is OutputFormat.YAML:
        assert "user-data: |" in printed


@pytest.mark.parametrize(
    ("ago_s", "expected"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
)
def test_age(ago_s: int, expected: str) -> None:
    now_ms = 1_800_000_000_000
    assert columns.age("2027-01-15T08:00:00.000Z", now_ms + 1000 * ago_s) == expected


def test_cells_survive_missing_parts() -> None:
    for kind in (columns.MICROVM, columns.HOST, columns.NAMESPACE, columns.POLICY, columns.OPERATION):
        for column in kind:
            assert isinstance(column.cell({}, 0), str)
