"""The provider starts every time. `provider_starts.py --count 1000` is the long form of this test."""

from __future__ import annotations

import json

import pytest
from acceptance.terraform.provider_starts import main


def test_fifty_starts_and_none_fails(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--count", "50", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert (code, figures["failed"], figures["starts"]) == (0, 0, 50)
