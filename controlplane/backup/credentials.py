"""What an S3-compatible store is reached with: from the environment or from a file that only its owner reads.

Never from the command line, where `ps` shows it. The values of the environment are those that every S3 tool uses
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL,
AWS_CA_BUNDLE); FLINTLOCK_S3_FILE names a YAML file with the same in it:

    access_key_id: AKIA...
    secret_access_key: ...
    session_token: ...            # where the provider gives one
    region: eu-central-1          # else us-east-1
    endpoint: https://s3.example  # else Amazon's
    ca_file: /etc/ssl/s3.crt      # where the endpoint's certificate is of a private authority

What the file says counts, then the environment; the two keys are taken from one place together.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from controlplane.ports import StoreError
from controlplane.strict_yaml import YamlError, load_one

FILE_VARIABLE = "FLINTLOCK_S3_FILE"
DEFAULT_REGION = "us-east-1"
_MAX_FILE_BYTES = 64 * 1024
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file of mode 0600 that holds access_key_id and "
    f"secret_access_key in {FILE_VARIABLE}"
)
_VARIABLES = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "ca_file": ("AWS_CA_BUNDLE",),
}
_SECRETS = ("access_key_id", "secret_access_key", "session_token")


@dataclass(frozen=True, slots=True)
class S3Access:
    """Its representation leaves the secrets out."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = DEFAULT_REGION
    endpoint: str | None = None
    ca_file: Path | None = None


def s3_access(environ: Mapping[str, str], file: Path | None = None) -> S3Access:
    """From `file` (else the one that the environment names), then from the environment. Raises StoreError."""
    named = environ.get(FILE_VARIABLE)
    path = file if file is not None else Path(named) if named else None
    written = _read(path) if path is not None else {}
    found = dict(written)
    for key, variables in _VARIABLES.items():
        if key in _SECRETS and any(secret in written for secret in _SECRETS):
            continue
        value = next((environ[name] for name in variables if environ.get(name)), None)
        if key not in found and value is not None:
            found[key] = value
    missing = [key for key in ("access_key_id", "secret_access_key") if not found.get(key)]
    if missing:
        where = f"{path}: " if path is not None and written else ""
        raise StoreError("invalid", f"{where}{' and '.join(missing)}: no S3 credential was given", hint=_HINT)
    for key in _SECRETS:
        if not all(character.isascii() and character.isprintable() for character in found.get(key, "")):
            raise StoreError("invalid", f"{key}: holds characters that no S3 credential has", hint=_HINT)
    endpoint = found.get("endpoint")
    ca_file = found.get("ca_file")
    if ca_file is not None and not Path(ca_file).is_file():
        raise StoreError("invalid", f"ca_file: {ca_file} does not exist")
    return S3Access(
        access_key_id=found["access_key_id"],
        secret_access_key=found["secret_access_key"],
        session_token=found.get("session_token"),
        region=found.get("region", DEFAULT_REGION),
        endpoint=None if endpoint is None else _endpoint(endpoint),
        ca_file=None if ca_file is None else Path(ca_file),
    )


def _endpoint(text: str) -> str:
    """Raises StoreError unless `text` is an address that state may be sent to."""
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise StoreError("invalid", "endpoint: must be https://HOST[:PORT], without credentials in it")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise StoreError(
            "invalid",
            f"endpoint: http://{parts.hostname} would send the cluster's state unencrypted",
            hint="use https; plain http is taken for loopback addresses only",
        )
    return text.rstrip("/")


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise StoreError("invalid", f"{path}: others can read it (mode {mode:04o})", hint=f"chmod 600 {path}")
            raw = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StoreError("invalid", f"{path}: cannot be read: {error.strerror}", hint=_HINT) from None
    if len(raw) > _MAX_FILE_BYTES:
        raise StoreError("invalid", f"{path}: over {_MAX_FILE_BYTES} bytes")
    try:
        document = load_one(raw.decode())
    except (UnicodeDecodeError, YamlError):
        # The parser quotes what it stumbles over, which here may be a secret.
        raise StoreError("invalid", f"{path}: is not YAML", hint=_HINT) from None
    if not isinstance(document, dict):
        raise StoreError("invalid", f"{path}: must be a mapping", hint=_HINT)
    found: dict[str, str] = {}
    for key, value in cast("dict[str, object]", document).items():
        if key not in _VARIABLES:
            raise StoreError(
                "invalid", f"{path}: {str(key)[:40]!r} is not one of {', '.join(sorted(_VARIABLES))}", hint=_HINT
            )
        if not isinstance(value, str) or not value:
            raise StoreError("invalid", f"{path}: {key}: must be text that is not empty; quote it", hint=_HINT)
        found[key] = value
    return found
