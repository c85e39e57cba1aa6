"""What `flintctl login` was given by an issuer, kept by context in a file that only its owner can read.

An ID token lasts for minutes; the refresh token gets the next one, for as long as the issuer lets it. Some issuers give
another refresh token each time and take the one before for stolen, so two commands never refresh at the same time.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from controlplane.cli.errors import CliError
from controlplane.cli.oidc_login import OidcClient, Tokens, refreshed
from controlplane.identity import storage

SPARE_S = 60
"""An ID token that ends sooner is replaced by the next."""
_AGAIN = "log in again: `flintctl login`"


class Login(BaseModel):
    """One login: at whom, and what it gave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client: OidcClient
    tokens: Tokens


def path_of(config: Path, context: str) -> Path:
    """Beside the configuration file."""
    return config.parent / "logins" / f"{quote(context, safe='')}.json"


def save(path: Path, login: Login) -> None:
    storage.private_directory(path.parent)
    storage.replace(path, login.model_dump_json(indent=2).encode() + b"\n", mode=0o600)


def read(path: Path) -> Login | None:
    """None where nobody logged in. Raises CliError."""
    try:
        return Login.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise CliError(f"{path} cannot be read", hint=_AGAIN) from None


def forget(path: Path) -> bool:
    """Whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def id_token(path: Path) -> str | None:
    """One that is good for a while; None where nobody logged in. Raises CliError."""
    login = read(path)
    if login is None or not _ends_soon(login):
        return login.tokens.id_token if login is not None else None
    with _alone(path):
        login = read(path)
        if login is None or not _ends_soon(login):
            return login.tokens.id_token if login is not None else None
        if login.tokens.refresh_token is None:
            raise CliError(f"the login at {login.client.issuer} has ended", hint=_AGAIN)
        login = login.model_copy(update={"tokens": refreshed(login.client, login.tokens.refresh_token)})
        save(path, login)
        return login.tokens.id_token


def _ends_soon(login: Login) -> bool:
    return login.tokens.expires_at - time.time() < SPARE_S


@contextmanager
def _alone(path: Path) -> Generator[None]:
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
