"""References and file names: what is taken apart fits together again, and nothing leads out of the store."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.images.names import MAX_REFERENCE_LENGTH, check_file_name, parse_reference
from controlplane.model.types import IMAGE_PATTERN
from controlplane.ports import DriverError

references = st.from_regex(IMAGE_PATTERN, fullmatch=True).filter(lambda text: len(text) <= 255)


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("demo/kernel:6.1", "demo/kernel", "6.1"),
        ("demo/kernel", "demo/kernel", "latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b", "v1"),
        ("a@sha256:" + "0" * 64, "a", "latest"),
    ],
)
def test_names_and_tags(text: str, name: str, tag: str) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.tag) == (name, tag)


@given(references)
def test_whatever_the_api_accepts_gets_one_safe_folder(text: str) -> None:
    try:
        reference = parse_reference(text)
    except DriverError as error:
        # The pattern cannot express which colon starts the tag.
        assert error.code == "InvalidImageReference"  # noqa: PT017
        return
    for part in (reference.folder, reference.tag):
        assert "/" not in part
        assert not part.startswith(".")
        assert len(part.encode()) <= 255
    written = str(reference)
    if len(written) <= MAX_REFERENCE_LENGTH:  # with its tag written out it may be longer than what may be asked for
        assert parse_reference(written) == parse_reference(text.partition("@")[0])


@given(references, references)
def test_different_names_never_meet_in_one_folder(first: str, second: str) -> None:
    try:
        one, two = parse_reference(first), parse_reference(second)
    except DriverError:
        return
    assert (one.folder == two.folder) == (one.name == two.name)


@pytest.mark.parametrize("text", ["", "../etc", "A/b", "a//b", "a:..", "a b", "/a", "a/", "x" * 256, "a:\n", "a\n"])
def test_other_references_are_refused(text: str) -> None:
    with pytest.raises(DriverError) as refusal:
        parse_reference(text)
    assert refusal.value.code == "InvalidImageReference"


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "boot/../../x", ".hidden", "a//b", "a/", "a\0b", "a\n", "x" * 201]
)
def test_file_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(DriverError) as refusal:
        check_file_name(name)
    assert refusal.value.code == "InvalidImageFile"


@given(st.text(max_size=40))
def test_an_accepted_file_name_stays_below_its_folder(name: str) -> None:
    try:
        check_file_name(name)
    except DriverError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*", name)
