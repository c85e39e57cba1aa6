"""Every example is a configuration that Terraform accepts, formatted as Terraform would."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from acceptance.terraform.conftest import Work
from acceptance.terraform.runner import Flavor
from acceptance.terraform.steps import HEADER

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FOLDERS = [
    EXAMPLES / "provider",
    *sorted(EXAMPLES.glob("resources/*")),
    *sorted(EXAMPLES.glob("data-sources/*")),
    *sorted(EXAMPLES.glob("list-resources/*")),
    *sorted(EXAMPLES.glob("functions/*")),
    *sorted(EXAMPLES.glob("actions/*")),
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_is_valid(newest: Flavor, work: Work, folder: Path) -> None:
    header = "" if folder.name == "provider" else HEADER
    tf = work(newest, {}, header)
    for path in folder.iterdir():
        shutil.copy(path, tf.workdir)
    tf.init()
    tf.run("validate", "-no-color", "-query")
    tf.run("fmt", "-check", "-diff", *(each.name for each in folder.glob("*.*") if each.suffix in (".tf", ".hcl")))
