"""Which store a text means, and what S3 is reached with: precise refusals that never hold a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.stores import refused

from controlplane.backup import open_store
from controlplane.backup.archive import ArchiveStore
from controlplane.backup.credentials import s3_access
from controlplane.backup.directory import DirectoryStore
from controlplane.backup.s3 import S3BackupStore

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "MyKey9"}


def test_each_kind() -> None:
    assert isinstance(open_store("/var/backups", {}), DirectoryStore)
    assert isinstance(open_store("today.flsnap", {}), ArchiveStore)
    store = open_store("s3://bucket/a/b", {**KEYS, "AWS_ENDPOINT_URL": "https://s3.example"})
    assert isinstance(store, S3BackupStore)
    assert store.location == "s3://bucket/a/b at https://s3.example"


@pytest.mark.parametrize("location", ["", "gs://bucket", "https://host/x", "s3://", "s3://UP", "s3://bucket/../x"])
def test_no_place(location: str) -> None:
    with refused("invalid"):
        open_store(location, KEYS)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "access_key_id and secret_access_key: no S3 credential"),
        ({"AWS_ACCESS_KEY_ID": "AKID"}, "secret_access_key: no S3 credential"),
        ({**KEYS, "AWS_ENDPOINT_URL": "http://far.example:80"}, "unencrypted"),
        ({**KEYS, "AWS_ENDPOINT_URL": "s3.example"}, "endpoint: must be https"),
        ({**KEYS, "AWS_ENDPOINT_URL": "https://me:MyKey9@s3.example"}, "endpoint: must be https"),
        ({**KEYS, "AWS_CA_BUNDLE": "/nowhere.pem"}, "ca_file: /nowhere.pem does not exist"),
        ({**KEYS, "AWS_SECRET_ACCESS_KEY": "MyKey9\n"}, "secret_access_key: holds characters"),
    ],
)
def test_wrong_environment(environ: dict[str, str], said: str) -> None:
    with refused("invalid") as caught:
        s3_access(environ)
    assert said in caught.value.message
    assert "MyKey9" not in caught.value.message + caught.value.hint


def test_from_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "s3.yaml"
    path.write_text("access_key_id: FILE\nsecret_access_key: MyKey9\nendpoint: http://127.0.0.1:1\n")
    path.chmod(0o600)
    access = s3_access({**KEYS, "AWS_REGION": "eu-central-1", "AWS_SESSION_TOKEN": "env"}, path)
    assert (access.access_key_id, access.region, access.endpoint) == ("FILE", "eu-central-1", "http://127.0.0.1:1")
    assert access.session_token is None, "keys of one place are never mixed with those of another"
    assert "MyKey9" not in repr(access)
    assert s3_access({"FLINTLOCK_S3_FILE": str(path)}).access_key_id == "FILE"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("access_key_id: a\nsecret_access_key: MyKey9\n", 0o640, "others can read it (mode 0640)"),
        ("secret_access_key: MyKey9\n", 0o600, "access_key_id: no S3 credential"),
        ("secret: MyKey9\n", 0o600, "'secret' is not one of"),
        ("secret_access_key: 5\n", 0o600, "secret_access_key: must be text"),
        ("secret_access_key: [MyKey9", 0o600, "is not YAML"),
        ("- MyKey9\n", 0o600, "must be a mapping"),
    ],
)
def test_wrong_file(tmp_path_factory: pytest.TempPathFactory, content: str, mode: int, said: str) -> None:
    path = tmp_path_factory.mktemp("s3") / "s3.yaml"
    path.write_text(content)
    path.chmod(mode)
    with refused("invalid") as caught:
        s3_access({}, path)
    assert said in caught.value.message
    assert "MyKey9" not in caught.value.message + caught.value.hint


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with refused("invalid") as caught:
        s3_access({}, tmp_path / "none.yaml")
    assert "cannot be read" in caught.value.message
