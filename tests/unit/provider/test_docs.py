"""The documentation is the one that schemas, templates and examples make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from provider_shim.docs import PROJECT, main, pages
from provider_shim.resources.provider import FlintlockProvider

EXAMPLES = PROJECT.parent / "examples"


def test_the_committed_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--check"])
    assert (code, capsys.readouterr().err) == (0, "")


def test_a_stale_page_is_named_and_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT / "templates", project / "templates")
    shutil.copytree(PROJECT / "docs", project / "docs")
    (project / "docs/index.md").write_text("old")
    (project / "docs/gone.md").write_text("a type that is no more")
    arguments = ["--project", str(project), "--examples", str(EXAMPLES)]
    assert main([*arguments, "--check"]) == 1
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["gone.md", "index.md"]
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0


def test_every_type_has_a_page_and_nothing_is_left_unfilled() -> None:
    provider = FlintlockProvider()
    made = dict(pages(PROJECT / "templates", EXAMPLES))
    types = (
        provider.resources,
        provider.data_sources,
        provider.list_resources,
        provider.functions,
        provider.ephemeral_resources,
        provider.actions,
    )
    assert len(made) == 1 + sum(map(len, types))
    assert not [name for name, text in made.items() if "{{" in text]
