"""The image store on a real file system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.images.store import LocalImageStore
from controlplane.ports import DriverError


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


def file_of(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refusal_of(store: LocalImageStore, image: str, filename: str | None, role: str) -> DriverError:
    with pytest.raises(DriverError) as refusal:
        store.resolve(image, filename, role=role)
    return refusal.value


def test_what_is_added_is_found(store: LocalImageStore, tmp_path: Path) -> None:
    kernel, extra = file_of(tmp_path, "k", b"kernel"), file_of(tmp_path, "e", b"extra")
    manifest = store.add(
        "demo/kernel:6.1", {"boot/vmlinuz": kernel, "config": extra}, {"kernel": "boot/vmlinuz"}, source="a test"
    )
    assert (manifest.reference, manifest.size, manifest.source) == ("demo/kernel:6.1", 11, "a test")
    assert store.resolve("demo/kernel:6.1", None, role="kernel").read_bytes() == b"kernel"
    assert store.resolve("demo/kernel:6.1", "config", role="kernel").read_bytes() == b"extra"
    assert store.resolve("demo/kernel:6.1", "/boot/vmlinuz", role="kernel").read_bytes() == b"kernel"
    assert store.resolve(f"demo/kernel:6.1@{manifest.digest}", None, role="kernel").is_file()
    assert list(store.list()) == [manifest]
    assert store.verify() == []


def test_the_only_file_of_an_image_without_roles_is_it(store: LocalImageStore, tmp_path: Path) -> None:
    store.add("one", {"x": file_of(tmp_path, "x", b"x")}, {})
    assert store.resolve("one:latest", None, role="disk").read_bytes() == b"x"


def test_what_is_missing_is_named_with_what_is_there(store: LocalImageStore, tmp_path: Path) -> None:
    error = refusal_of(store, "demo/kernel:6.1", None, "kernel")
    assert error.code == "ImageNotFound"
    assert "it has: none" in error.message
    path = file_of(tmp_path, "x", b"x")
    store.add("a:1", {"vmlinuz": path, "other": path}, {"kernel": "vmlinuz"})
    store.add("b:2", {"x": path}, {"disk": "x"})
    error = refusal_of(store, "a:2", None, "kernel")
    assert (error.code, "a:1, b:2" in error.message) == ("ImageNotFound", True)
    error = refusal_of(store, "a:1", "absent", "kernel")
    assert (error.code, "other, vmlinuz (kernel)" in error.message) == ("ImageFileNotFound", True)
    assert refusal_of(store, "b:2", None, "initrd").code == "ImageFileNotFound"
    error = refusal_of(store, "a:1@sha256:" + "0" * 64, None, "kernel")
    assert (error.code, "with digest sha256:" in error.message) == ("ImageNotFound", True)
    assert refusal_of(store, "a:1", "../../b/2/files/x", "kernel").code == "ImageFileNotFound"


def test_bad_images_are_refused_and_leave_nothing(store: LocalImageStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, "x", b"x")
    cases = [
        ({}, {}, "InvalidImage"),
        ({f"f{number}": path for number in range(65)}, {}, "InvalidImage"),
        ({"x": path}, {"kernel": "y"}, "InvalidImage"),
        ({"x": path}, {"root": "x"}, "InvalidImage"),
        ({"../x": path}, {}, "InvalidImageFile"),
        ({"x": tmp_path}, {}, "InvalidImageFile"),
        ({"x": tmp_path / "absent"}, {}, "InvalidImageFile"),
    ]
    for files, roles, code in cases:
        with pytest.raises(DriverError) as refusal:
            store.add("bad:1", files, roles)
        assert refusal.value.code == code
    assert list(store.list()) == []


def test_a_tag_is_replaced_in_one_step_and_readers_keep_what_they_opened(
    store: LocalImageStore, tmp_path: Path
) -> None:
    first = store.add("a:1", {"x": file_of(tmp_path, "x", b"old")}, {"disk": "x"})
    assert store.add("a:1", {"x": tmp_path / "x"}, {"disk": "x"}) == first, "equal content was written again"
    with store.resolve("a:1", None, role="disk").open("rb") as reader:
        second = store.add("a:1", {"y": file_of(tmp_path, "y", b"new")}, {"disk": "y"})
        assert reader.read() == b"old"
    assert second.digest != first.digest
    assert store.resolve("a:1", None, role="disk").read_bytes() == b"new"
    assert refusal_of(store, "a:1", "x", "disk").code == "ImageFileNotFound"
    assert [entry.name for entry in (store.root / ".incoming").iterdir()] == ["lock"]


def test_removal(store: LocalImageStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, "x", b"x")
    store.add("a:1", {"x": path}, {})
    store.add("a:2", {"x": path}, {})
    assert store.remove("a:1")
    assert not store.remove("a:1")
    assert [manifest.reference for manifest in store.list()] == ["a:2"]
    assert store.remove("a:2")
    assert list(store.list()) == []


def test_verify_names_what_is_damaged(store: LocalImageStore, tmp_path: Path) -> None:
    path = file_of(tmp_path, "x", b"content")
    for name in ("good", "changed", "gone"):
        store.add(name, {"x": path}, {})
    changed, gone = (store.resolve(name, None, role="disk") for name in ("changed", "gone"))
    changed.chmod(0o644)
    changed.write_bytes(b"CONTENT")
    gone.unlink()
    problems = store.verify()
    assert [problem.split(": ")[0] for problem in problems] == ["changed:latest", "gone:latest"]
    assert "SHA-256" in problems[0]
    assert "No such file" in problems[1]


def test_a_damaged_manifest_is_an_error_and_not_an_absence(store: LocalImageStore, tmp_path: Path) -> None:
    store.add("a", {"x": file_of(tmp_path, "x", b"x")}, {})
    (store.root / "a/latest/manifest.json").write_text("{")
    assert refusal_of(store, "a", None, "disk").code == "ImageStoreFailed"


def test_what_a_crashed_add_left_is_swept(store: LocalImageStore, tmp_path: Path) -> None:
    left = store.root / ".incoming/tmpcrashed"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    store.add("a", {"x": file_of(tmp_path, "x", b"x")}, {})
    assert not left.exists()


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DriverError) as refusal:
        LocalImageStore(tmp_path / "file" / "images").add("a", {"x": tmp_path / "file"}, {})
    assert refusal.value.code == "ImageStoreFailed"


def test_a_sparse_file_keeps_its_content(store: LocalImageStore, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    store.add("sparse", {"x": path}, {})
    assert store.resolve("sparse", None, role="disk").read_bytes() == bytes(5 << 20) + b"end"


WRITER = """
import sys
from pathlib import Path
from controlplane.images.store import LocalImageStore
root, path, name = sys.argv[1:]
for number in range(10):
    Path(path).write_text(f"{name} {number}")
    LocalImageStore(Path(root)).add("shared:1", {"x": Path(path)}, {"disk": "x"}, source=name)
"""


def test_several_processes_may_fill_one_store(store: LocalImageStore, tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(store.root), str(tmp_path / name), name])
        for name in ("one", "two")
    ]
    present = 0
    while any(writer.poll() is None for writer in writers):
        listed = [manifest.reference for manifest in store.list()]
        assert listed in ([], ["shared:1"])
        assert len(listed) >= present, "an image was missing while it was replaced"
        present = len(listed)
    assert [writer.wait(30) for writer in writers] == [0, 0]
    assert store.verify() == []
    assert store.resolve("shared:1", None, role="disk").read_text().endswith(" 9")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(
        st.from_regex(r"[a-z0-9_][a-z0-9._+-]{0,12}", fullmatch=True), st.binary(max_size=64), min_size=1, max_size=5
    ),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
)
def test_any_contents_come_back(store: LocalImageStore, tmp_path: Path, files: dict[str, bytes], tag: str) -> None:
    sources = {name: file_of(tmp_path, f"in{number}", data) for number, (name, data) in enumerate(files.items())}
    image = f"any/name:{tag}"
    try:
        store.add(image, sources, {})
    except DriverError as error:
        assert error.code == "InvalidImageReference"  # noqa: PT017
        return
    assert {name: store.resolve(image, name, role="disk").read_bytes() for name in files} == files
    assert store.verify() == []
    assert store.remove(image)
