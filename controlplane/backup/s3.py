"""A snapshot store in a bucket of an S3-compatible service, through the Rust object_store library (obstore).

Every object fits one request, whose payload the signature covers, and is read back and compared after it was put: a
service that acknowledges and keeps something else is found out while the data is still here. Errors name the bucket
and what to do; what the service said is reduced to its error code, because answers to a wrong signature quote the
request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as Bucket

from controlplane.backup.credentials import S3Access
from controlplane.backup.objects import check_content, check_name, check_prefix, check_size, collect, not_found
from controlplane.ports import StoredObject, StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, S3Config, S3Credential

CONNECT_S = 5
REQUEST_S = 60
RETRY_S = 20
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_STATUS = re.compile(r"\b([45]\d\d) [A-Z]")

_DENIED = {
    "InvalidAccessKeyId": "the service does not know the access key id",
    "SignatureDoesNotMatch": "the secret access key is not the one of the access key id",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this machine's clock is too far from the service's",
    "AccessDenied": "these credentials may not do that",
}
_CREDENTIALS_HINT = (
    "check the credentials, that the bucket exists, and that they may read, write, list and delete in it"
)


class S3BackupStore:
    """Implements `ports.SnapshotStore`; objects are below `prefix`. Raises StoreError when the names are not valid."""

    def __init__(self, bucket: str, prefix: str, access: S3Access, *, retry_s: float = RETRY_S) -> None:
        if not _BUCKET.fullmatch(bucket):
            raise StoreError("invalid", f"s3://{bucket[:80]}: not a bucket's name (3 to 63 of a-z 0-9 . -)")
        self._bucket_name = bucket
        self._prefix = check_prefix(prefix)
        self._endpoint = access.endpoint
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=REQUEST_S),
            "allow_http": access.endpoint is not None and access.endpoint.startswith("http://"),
        }
        if access.ca_file is not None:
            try:
                client["root_certificate"] = access.ca_file.read_bytes()
            except OSError as error:
                raise StoreError("invalid", f"ca_file: {access.ca_file}: {error.strerror}") from None
        try:
            self._bucket = Bucket(
                bucket,
                prefix=self._prefix or None,
                config=_config(access),
                client_options=client,
                credential_provider=_credentials(access),
                retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=retry_s)},
            )
        except BaseError:
            raise StoreError("invalid", f"{self.location}: the settings of this store are not valid") from None

    @property
    def location(self) -> str:
        where = f" at {self._endpoint}" if self._endpoint else ""
        return f"s3://{self._bucket_name}{'/' + self._prefix if self._prefix else ''}{where}"

    @property
    def shared(self) -> bool:
        return True

    def put(self, name: str, data: Iterable[bytes], *, sha256: str) -> None:
        content = collect(check_name(name), data, sha256)
        try:
            obstore.put(self._bucket, name, content, use_multipart=False)
        except (BaseError, OSError) as error:
            raise self._failed(f"cannot write {name}", error) from None
        try:
            self.get(name, sha256=sha256)
        except StoreError as error:
            if error.code in ("damaged", "too_large"):
                with suppress(StoreError):
                    self.delete(name)
                raise StoreError(
                    "damaged",
                    f"{self.location}: the service took {name} and keeps other bytes",
                    hint="it is not safe to keep backups there",
                ) from None
            raise

    def get(self, name: str, *, sha256: str | None = None) -> bytes:
        try:
            result = obstore.get(self._bucket, check_name(name))
            check_size(name, result.meta["size"])
            data = bytes(result.bytes())
        except FileNotFoundError as error:
            raise self._absent(name, error) from None
        except (BaseError, OSError) as error:
            raise self._failed(f"cannot read {name}", error) from None
        check_content(name, data, sha256)
        return data

    def exists(self, name: str) -> bool:
        try:
            obstore.head(self._bucket, check_name(name))
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise self._failed(f"cannot look for {name}", error) from None
        return True

    def list(self, prefix: str) -> Iterator[StoredObject]:
        try:
            pages: Iterable[Sequence[ObjectMeta]] = obstore.list(  # pyright: ignore[reportUnknownMemberType] - Arrow is untyped
                self._bucket, check_prefix(prefix) or None, chunk_size=1000, return_arrow=False
            )
            for page in pages:
                for found in page:
                    yield StoredObject(found["path"], found["size"], found["last_modified"].timestamp())
        except FileNotFoundError as error:
            raise self._absent(prefix, error) from None
        except (BaseError, OSError) as error:
            raise self._failed("cannot be listed", error) from None

    def delete(self, name: str) -> None:
        try:
            obstore.delete(self._bucket, check_name(name))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise self._failed(f"cannot delete {name}", error) from None

    def _absent(self, name: str, error: Exception) -> StoreError:
        if _code(error) == "NoSuchBucket":
            return self._failed("", error)
        return not_found(name, self.location)

    def _failed(self, what: str, error: Exception) -> StoreError:
        """What the library said, without the request and the answer that it quotes."""
        code, text = _code(error), str(error)
        if code == "NoSuchBucket":
            hint = "create it first, or name another one: buckets are never created here"
            return StoreError("no_bucket", f"{self.location}: the bucket {self._bucket_name} does not exist", hint=hint)
        status = found[1] if (found := _STATUS.search(text)) else ""
        if (
            isinstance(error, PermissionDeniedError | UnauthenticatedError)
            or code in _DENIED
            or status in ("401", "403")
        ):
            why = _DENIED.get(code, f"access denied ({code or status or 'no reason given'})")
            return StoreError("denied", f"{self.location}: {what}: {why}", hint=_CREDENTIALS_HINT)
        if code or status:
            return StoreError("failed", f"{self.location}: {what}: the service answered {code or status}")
        certificate = "certificate" in text.lower() or "UnknownIssuer" in text
        if certificate:
            hint = "name its authority by ca_file, or AWS_CA_BUNDLE"
            return StoreError("unreachable", f"{self.location}: the service's certificate is not trusted", hint=hint)
        hint = "is the endpoint right, and the service up? (AWS_ENDPOINT_URL, or endpoint in the credentials' file)"
        return StoreError("unreachable", f"{self.location}: {what}: the service does not answer", hint=hint)


def _code(error: Exception) -> str:
    """The error code in the service's answer, empty when there is none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _config(access: S3Access) -> S3Config:
    """What is said here counts more than variables that the library would read for itself."""
    config: S3Config = {"region": access.region, "skip_signature": False}
    if access.endpoint is not None:
        config["endpoint"] = access.endpoint
    return config


def _credentials(access: S3Access) -> Callable[[], S3Credential]:
    """Both keys and the token from one place: the library would take a missing token from the environment."""
    return lambda: {
        "access_key_id": access.access_key_id,
        "secret_access_key": access.secret_access_key,
        "token": access.session_token,
        "expires_at": None,
    }
