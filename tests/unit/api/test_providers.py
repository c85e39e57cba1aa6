"""Releases of the Terraform provider are given to whoever asks, and nothing else of the disk is."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.api.rig import Rig, eventually, served

from controlplane.api.http.releases import MAX_ARCHIVES, MAX_DOWNLOADS, Releases

MIRROR = "/providers/registry.terraform.io/microscaler/flintlock"
ZIP = "terraform-provider-flintlock_1.2.3_linux_amd64.zip"


def write_archive(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "providers"
    made.mkdir()
    write_archive(made / ZIP, b="second", a="first")
    write_archive(made / ZIP.replace("amd64", "arm64"), a="other")
    write_archive(made / ZIP.replace("1.2.3", "1.3.0-beta.1"), a="newer")
    (made / "secret.txt").write_text("secret")
    (made / "terraform-provider-flintlock_1.2.3_SHA256SUMS").write_text("")
    return made


@pytest.fixture
def mirror(tmp_path: Path, directory: Path) -> Iterator[Rig]:
    with served(tmp_path, providers_dir=directory) as rig:
        rig.session.headers.pop("Authorization")
        yield rig


def test_versions_platforms_and_archives_are_had_without_a_token(mirror: Rig, directory: Path) -> None:
    assert mirror.get("/namespaces").status_code == 401
    index = mirror.get(f"{MIRROR}/index.json")
    assert index.json() == {"versions": {"1.2.3": {}, "1.3.0-beta.1": {}}}
    assert index.headers["Content-Type"] == "application/json"
    archives = mirror.get(f"{MIRROR}/1.2.3.json").json()["archives"]
    assert set(archives) == {"linux_amd64", "linux_arm64"}
    assert archives["linux_amd64"]["url"] == ZIP
    content = (directory / ZIP).read_bytes()
    lines = "".join(
        f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in (("a", b"first"), ("b", b"second"))
    )
    assert archives["linux_amd64"]["hashes"] == [
        f"h1:{base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()}",
        f"zh:{hashlib.sha256(content).hexdigest()}",
    ]
    given = mirror.get(f"{MIRROR}/{ZIP}")
    assert given.content == content
    assert given.headers["Content-Type"] == "application/zip"


@pytest.mark.parametrize(
    "document",
    ["1.2.4.json", "secret.txt", "terraform-provider-flintlock_1.2.3_SHA256SUMS", "..%2fsecret.txt", ZIP + ".zip"],
)
def test_nothing_else_is_given(mirror: Rig, document: str) -> None:
    answer = mirror.get(f"{MIRROR}/{document}")
    assert answer.status_code in (404, 422)
    assert "secret" not in answer.text.replace("secret.txt", "")


def test_nothing_is_written_there(mirror: Rig) -> None:
    assert mirror.request("PUT", f"{MIRROR}/{ZIP}", data=b"").status_code == 405


def test_a_node_without_releases_has_none(tmp_path: Path) -> None:
    with served(tmp_path) as rig:
        assert rig.get(f"{MIRROR}/index.json").json()["code"] == "not_found"


def test_a_replaced_archive_has_other_hashes_and_a_broken_one_is_not_offered(mirror: Rig, directory: Path) -> None:
    def hashes() -> list[str]:
        return mirror.get(f"{MIRROR}/1.2.3.json").json()["archives"]["linux_amd64"]["hashes"]

    before = hashes()
    assert hashes() == before
    write_archive(directory / ZIP, a="rebuilt")
    assert set(hashes()).isdisjoint(before)
    (directory / ZIP).write_bytes(b"no archive")
    assert set(mirror.get(f"{MIRROR}/1.2.3.json").json()["archives"]) == {"linux_arm64"}


def test_downloads_are_bounded(mirror: Rig) -> None:
    releases: Releases = mirror.server.app.state.services.releases
    for _ in range(MAX_DOWNLOADS):
        mirror.run(releases.places.acquire())
    answer = mirror.get(f"{MIRROR}/{ZIP}")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_downloads")
    assert int(answer.headers["Retry-After"]) > 0
    assert mirror.get(f"{MIRROR}/index.json").status_code == 200
    releases.places.release()
    assert mirror.get(f"{MIRROR}/{ZIP}").status_code == 200
    eventually(lambda: mirror.get(f"{MIRROR}/{ZIP}").status_code == 200, "its place is given back")


def test_archives_are_bounded(tmp_path: Path) -> None:
    for number in range(MAX_ARCHIVES + 1):
        (tmp_path / ZIP.replace("1.2.3", f"1.2.{number}")).touch()
    assert len(Releases(tmp_path).archives()) == MAX_ARCHIVES
    assert Releases(tmp_path / "none").archives() == []
