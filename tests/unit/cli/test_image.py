"""flintctl image: a host's store, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLINTLOCK_IMAGES", str(tmp_path / "images"))
    (tmp_path / "bzImage").write_bytes(b"kernel")
    (tmp_path / "notes").write_bytes(b"notes")
    return tmp_path / "images"


def test_life_of_an_image(bare: Cli, store: Path) -> None:
    added = bare("image", "add", "acme/kernel:6.12", "--kernel", "bzImage", "--file", "doc/notes=notes")
    assert added.code == 0, added.err
    assert added.out.startswith("acme/kernel:6.12: sha256:")
    listed = json.loads(bare("image", "list", "-o", "json").out)
    assert listed["store"] == str(store)
    assert listed["items"][0]["roles"] == {"kernel": "bzImage"}
    assert "bzImage (kernel), doc/notes" in bare("image", "list").out
    assert "1 images in" in bare("image", "verify").out
    assert bare("image", "remove", "acme/kernel:6.12").out == "acme/kernel:6.12: removed\n"
    assert bare("image", "remove", "acme/kernel:6.12").code == 1
    assert bare("image", "list").err == f"No image in {store}.\n"


def test_damage_is_found(bare: Cli, store: Path) -> None:
    assert bare("image", "add", "acme/kernel:1", "--kernel", "bzImage").code == 0
    (damaged,) = store.rglob("bzImage")
    damaged.chmod(0o644)
    damaged.write_bytes(b"kernal")
    answer = bare("image", "verify")
    assert answer.code == 1
    assert "acme/kernel:1: bzImage: content does not match" in answer.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["add", "Acme:1", "--kernel", "bzImage"], "[InvalidImageReference]"),
        (["add", "a/b:1", "--kernel", "none"], "none is not a file"),
        (["add", "a/b:1", "--file", "../x=notes"], "[InvalidImageFile]"),
        (["remove", "a/b:1"], "image a/b:1 is not in"),
    ],
)
def test_refusals_name_what_is_wrong(bare: Cli, store: Path, arguments: list[str], expected: str) -> None:
    answer = bare("image", *arguments)
    assert answer.code == 1
    assert expected in answer.err
