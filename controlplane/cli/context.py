"""Which cluster a command talks to, and as whom.

Each value is looked for in the flags, then in the environment (FLINTLOCK_ENDPOINTS, FLINTLOCK_TOKEN or
FLINTLOCK_OIDC_TOKEN, or these with _FILE, FLINTLOCK_CA_FILE, FLINTLOCK_NAMESPACE), then in the chosen context of
~/.config/flintlock/config.yaml, a login of which goes before its token file:

    current: dev
    contexts:
      dev:
        endpoints: [https://127.0.0.1:7301, https://127.0.0.1:7302]
        ca_file: /home/me/.flintlock-dev/pki/ca.crt
        token_file: /home/me/.flintlock-dev/token
        namespace: demo

`flintctl dev up` writes the context `dev`. Tokens stay in files of their own, so that the configuration can be
shown.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from controlplane.cli import logins
from controlplane.cli.client import Client
from controlplane.cli.errors import CliError
from controlplane.identity import storage
from controlplane.model.types import Name
from controlplane.settings import split_address
from controlplane.strict_yaml import YamlError, load_one

DEFAULT_NAMESPACE = "default"
_NO_CLUSTER_HINT = "start a local one with `flintctl dev up`, or set FLINTLOCK_ENDPOINTS=https://HOST:PORT"


class ClusterContext(BaseModel):
    """How to reach one cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoints: list[str] = []
    ca_file: Path | None = None
    token_file: Path | None = None
    namespace: Name | None = None


class ContextFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    current: str | None = None
    contexts: dict[str, ClusterContext] = {}


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None where it said nothing."""

    endpoints: tuple[str, ...] = ()
    token: str | None = None
    ca_file: Path | None = None
    context: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def config_path(environ: Mapping[str, str]) -> Path:
    if named := environ.get("FLINTLOCK_CONFIG"):
        return Path(named)
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "flintlock" / "config.yaml"


def read_config(path: Path) -> ContextFile:
    """An absent file is an empty one. Raises CliError naming the file and the field."""
    try:
        document = load_one(path.read_text())
    except FileNotFoundError:
        return ContextFile()
    except (OSError, UnicodeDecodeError, YamlError) as error:
        raise CliError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return ContextFile.model_validate(document or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CliError(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def save_context(path: Path, name: str, context: ClusterContext | None) -> None:
    """Add or replace the context `name` and make it current if no other one is; None removes it."""
    config = read_config(path)
    contexts = {key: value for key, value in config.contexts.items() if key != name}
    current = config.current
    if context is not None:
        contexts[name] = context
        current = current if current in contexts else name
    elif current == name:
        current = None
    if context is None and not path.exists():
        return
    document = ContextFile(current=current, contexts=contexts).model_dump(mode="json", exclude_none=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.replace(path, yaml.safe_dump(document, sort_keys=False).encode(), mode=0o600)


class Connection:
    """The values that hold for this invocation, resolved when they are first asked for."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._environ = flags.environ
        self._chosen: ClusterContext | None = None

    @property
    def namespace(self) -> str:
        """Used where a command names none."""
        return self.explicit_namespace or DEFAULT_NAMESPACE

    @property
    def explicit_namespace(self) -> str | None:
        """What the environment or the context says; None when neither does."""
        return self._environ.get("FLINTLOCK_NAMESPACE") or self._context().namespace

    def client(self, *, retry_for_s: float = 30.0) -> Client:
        """Raises CliError saying which value is missing or wrong and where it came from."""
        return Client(self.endpoints(), self.token(), self.ca_file(), retry_for_s=retry_for_s)

    def endpoints(self) -> list[str]:
        if self._flags.endpoints:
            return [endpoint_url(text, "--endpoint") for text in self._flags.endpoints]
        if listed := self._environ.get("FLINTLOCK_ENDPOINTS"):
            return [endpoint_url(text.strip(), "FLINTLOCK_ENDPOINTS") for text in listed.split(",") if text.strip()]
        endpoints = self._context().endpoints
        if not endpoints:
            raise CliError("no endpoint is configured", hint=_NO_CLUSTER_HINT)
        return [endpoint_url(text, "endpoints in the context") for text in endpoints]

    def ca_file(self) -> Path | None:
        named = self._environ.get("FLINTLOCK_CA_FILE")
        found = (
            (self._flags.ca_file, "--ca-file")
            if self._flags.ca_file
            else (Path(named), "FLINTLOCK_CA_FILE")
            if named
            else (self._context().ca_file, "ca_file in the context")
        )
        path, source = found
        if path is not None and not path.is_file():
            raise CliError(f"{source}: {path} does not exist", hint="it is the PEM file of the cluster's authority")
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except (ssl.SSLError, OSError):
                raise CliError(
                    f"{source}: {path} holds no PEM certificate", hint="it is the PEM file of the cluster's authority"
                ) from None
        return path

    def token(self) -> str:
        token, source = self._found_token()
        if token is None:
            raise CliError(
                "no token is configured",
                hint="set FLINTLOCK_TOKEN, run `flintctl login`, or start a cluster with `flintctl dev up`",
            )
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise CliError(f"{source}: not a token: it must be printable ASCII without spaces")
        return token

    def login_path(self) -> Path:
        """Where the login of the chosen context is kept. Raises CliError without a context."""
        path, name = config_path(self._environ), self._context_name()[0]
        if name is None:
            raise CliError(f"a login belongs to a context, and {path} has none that is current", hint="see --context")
        self._context()
        return logins.path_of(path, name)

    def _found_token(self) -> tuple[str | None, str]:
        """The token and where it is from: flags, environment, the login, the context's file."""
        if self._flags.token is not None:
            return self._flags.token, "--token"
        for variable in ("FLINTLOCK_TOKEN", "FLINTLOCK_OIDC_TOKEN"):
            if text := self._environ.get(variable):
                return text, variable
            if named := self._environ.get(f"{variable}_FILE"):
                return _read_token(Path(named), f"{variable}_FILE"), f"{variable}_FILE"
        context, name = self._context(), self._context_name()[0]
        if name is not None and (token := logins.id_token(logins.path_of(config_path(self._environ), name))):
            return token, "the login"
        if context.token_file is not None:
            return _read_token(context.token_file, "token_file in the context"), str(context.token_file)
        return None, ""

    def _context_name(self) -> tuple[str | None, str]:
        """The chosen context, and what chose it."""
        if self._flags.context is not None:
            return self._flags.context, "--context"
        if named := self._environ.get("FLINTLOCK_CONTEXT"):
            return named, "FLINTLOCK_CONTEXT"
        path = config_path(self._environ)
        return read_config(path).current, f"current in {path}"

    def _context(self) -> ClusterContext:
        if self._chosen is None:
            self._chosen = self._choose()
        return self._chosen

    def _choose(self) -> ClusterContext:
        path = config_path(self._environ)
        config = read_config(path)
        name, source = self._context_name()
        if name is None:
            return ClusterContext()
        if name not in config.contexts:
            known = ", ".join(sorted(config.contexts)) or "none"
            raise CliError(f"{source}: there is no context {name!r} in {path}; there are: {known}")
        return config.contexts[name]


def _read_token(path: Path, source: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{source}: {path}: {getattr(error, 'strerror', None) or 'no text'}") from None


def endpoint_url(text: str, source: str) -> str:
    """`HOST:PORT` or `https://HOST:PORT` as a base URL. Raises CliError."""
    if text.startswith("http://"):
        raise CliError(f"{source}: {text}: the API is served over https only")
    address = text.removeprefix("https://").rstrip("/")
    try:
        if "/" in address:
            raise ValueError("must be https://HOST:PORT without a path")  # noqa: TRY301 - one handler for both
        split_address(address if ":" in address else f"{address}:443")
    except ValueError as error:
        raise CliError(f"{source}: {text!r}: {error}") from None
    return f"https://{address}"
