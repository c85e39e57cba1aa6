"""Reading settings: the file, the environment over it, and the files that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controlplane.identity.check import check, check_member
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import PartyKind
from controlplane.identity.oidc import OidcIssuer
from controlplane.settings.agent import AgentFileSettings, FlintlockdDriverSettings
from controlplane.settings.node import BackupSettings, NodeSettings
from controlplane.settings.values import Problem, Settings, SettingsError
from controlplane.strict_yaml import YamlError, load_one

NODE_PREFIX = "FLINTLOCK_NODE__"
AGENT_PREFIX = "FLINTLOCK_AGENT__"
_MAX_FILE_BYTES = 1024 * 1024


S = TypeVar("S", NodeSettings, AgentFileSettings)


def load_node(path: Path, environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Read a node's file, and check the files that it names. Raises SettingsError."""
    settings = read_node(path, environ)
    problems = _wrong_tls("tls", settings.tls, ("node", settings.node, settings.cluster_id))
    for index, issuer in enumerate(settings.oidc):
        if issuer.ca_file is not None:
            problems += _missing(
                f"oidc.{index}.ca_file", issuer.ca_file, "it is the PEM file of the issuer's authority"
            )
    problems += _missing(
        "tokens_file", settings.tokens_file, "`flintctl dev up` makes one; see docs/guides/certificates.md"
    )
    if problems:
        raise SettingsError(str(path), problems)
    return settings


def read_node(path: Path, environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Read a node's file alone. Raises SettingsError."""
    return _load(NodeSettings, path, NODE_PREFIX, os.environ if environ is None else environ)


def load_agent(path: Path, environ: Mapping[str, str] | None = None) -> AgentFileSettings:
    """Read an agent's file. Raises SettingsError."""
    settings = _load(AgentFileSettings, path, AGENT_PREFIX, os.environ if environ is None else environ)
    problems = _wrong_tls("tls", settings.tls, ("host", settings.host, settings.cluster_id))
    for index, driver in enumerate(settings.drivers):
        if isinstance(driver, FlintlockdDriverSettings):
            if driver.token_file is not None:
                problems += _missing(f"drivers.{index}.token_file", driver.token_file, "write the host's token into it")
            if driver.tls is not None:
                problems += _wrong_tls(f"drivers.{index}.tls", driver.tls, None)
    if problems:
        raise SettingsError(str(path), problems)
    return settings


def _load(model: type[S], path: Path, prefix: str, environ: Mapping[str, str]) -> S:
    document = _read(path)
    variables = _override(document, prefix, environ)
    try:
        return _absolute(model.model_validate(document), path.resolve().parent)
    except ValidationError as error:
        raise SettingsError(str(path), [_problem(e, variables) for e in error.errors(include_url=False)]) from None


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from None
    if len(data) > _MAX_FILE_BYTES:
        raise SettingsError(str(path), [Problem("", f"is over {_MAX_FILE_BYTES} bytes")])
    try:
        document = load_one(data.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), [Problem("", f"is not UTF-8 text (byte {error.start})")]) from None
    except YamlError as error:
        raise SettingsError(str(path), [Problem("", str(error))]) from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SettingsError(str(path), [Problem("", "must be a mapping of settings")])
    return cast("dict[str, object]", document)


def _override(document: dict[str, object], prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values into `document`; gives the variable that each overridden path came from."""
    variables: dict[str, str] = {}
    for variable in sorted(name for name in environ if name.startswith(prefix)):
        path = variable.removeprefix(prefix).lower().split("__")
        target = document
        for part in path[:-1]:
            below = target.setdefault(part, {})
            if not isinstance(below, dict):
                raise SettingsError(variable, [Problem(".".join(path), f"{part} is no group of settings")])
            target = cast("dict[str, object]", below)
        try:
            target[path[-1]] = load_one(environ[variable])
        except YamlError as error:
            raise SettingsError(variable, [Problem(".".join(path), str(error))]) from None
        variables[".".join(path)] = variable
    return variables


def _problem(error: ErrorDetails, variables: Mapping[str, str]) -> Problem:
    # Tags of the driver union appear in the location although the user never wrote them.
    parts = [str(part) for part in error["loc"]]
    if len(parts) > 2 and parts[0] == "drivers" and parts[2] in ("qemu", "simulated", "flintlockd"):
        del parts[2]
    field = ".".join(part for part in parts if part != "[key]")
    kind, given = error["type"], error.get("input")
    if kind == "missing":
        message = "is required"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "is not a known setting"
    elif kind == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        if isinstance(given, str):
            message += f" (found {given!r})"
    elif kind == "string_pattern_mismatch":
        message = f"{given!r} must be lower-case letters, digits and '-', at most 63 characters"
    else:
        shown = "" if isinstance(given, dict | list) or given is None else f" (found {given!r})"
        message = error["msg"][:1].lower() + error["msg"][1:] + shown
    if field in variables:
        message += f" [from the environment variable {variables[field]}]"
    return Problem(field, message)


def _absolute(settings: S, base: Path) -> S:
    """Paths in the file are relative to the file."""
    return cast(S, _rebase(settings, base))


def _rebase(value: object, base: Path) -> object:
    if isinstance(value, Path):
        return base / value.expanduser()
    if isinstance(value, TlsFiles):
        return TlsFiles(ca=base / value.ca, certificate=base / value.certificate, key=base / value.key)
    if isinstance(value, BackupSettings) and "://" not in value.store:
        value = value.model_copy(update={"store": str(base / Path(value.store).expanduser())})
    if isinstance(value, list):
        return [_rebase(item, base) for item in cast("list[object]", value)]
    if isinstance(value, Settings | OidcIssuer):
        return value.model_copy(update={name: _rebase(getattr(value, name), base) for name in type(value).model_fields})
    return value


def _missing(field: str, path: Path, advice: str) -> list[Problem]:
    return [] if path.is_file() else [Problem(field, f"{path} does not exist; {advice}")]


def _wrong_tls(field: str, tls: TlsFiles, member: tuple[PartyKind, str, str | None] | None) -> list[Problem]:
    advice = "`flintctl dev up` makes throwaway ones; see docs/guides/certificates.md"
    problems = _missing(f"{field}.ca", tls.ca, advice) + _missing(f"{field}.certificate", tls.certificate, advice)
    problems += _missing(f"{field}.key", tls.key, advice)
    if tls.key.is_file() and tls.key.stat().st_mode & 0o007:
        problems.append(Problem(f"{field}.key", f"everybody can read {tls.key}; run: chmod 600 {tls.key}"))
    if problems:
        return problems
    now = datetime.now(UTC)
    if member is None:
        faults = check(tls, now)
    else:
        kind, owner, cluster = member
        faults = check_member(tls, now, kind=kind, name=owner, cluster=cluster)
    return [Problem(f"{field}.{name}", message) for name, message in faults]
