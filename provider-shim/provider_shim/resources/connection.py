"""The provider's own configuration, and the one API client made from it.

Every argument may come from an environment variable instead. Nothing is connected before something is asked of the API,
so a plan that needs no answer works while the configuration still depends on unknown values.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provider_shim.client import Client, ClientSettings, check_endpoint, read_token
from provider_shim.framework.diagnostics import Report, attribute, error
from provider_shim.framework.types import UNKNOWN, Object, as_list
from provider_shim.resources.rehearsal import CHECKS, Checks, Rehearsals
from provider_shim.resources.shared_reads import SharedReads

ENVIRONMENT = {
    "endpoints": "FLINTLOCK_ENDPOINTS",
    "token": "FLINTLOCK_TOKEN",
    "token_file": "FLINTLOCK_TOKEN_FILE",
    "oidc_token": "FLINTLOCK_OIDC_TOKEN",
    "oidc_token_file": "FLINTLOCK_OIDC_TOKEN_FILE",
    "ca_file": "FLINTLOCK_CA_FILE",
    "client_certificate": "FLINTLOCK_CLIENT_CERTIFICATE",
    "client_key": "FLINTLOCK_CLIENT_KEY",
    "namespace": "FLINTLOCK_NAMESPACE",
    "plan_checks": "FLINTLOCK_PLAN_CHECKS",
}
DEFAULT_NAMESPACE = "default"


_TOKENS = ("token", "token_file", "oidc_token", "oidc_token_file")
"""Of the environment, the first that is there; of the configuration, one at most. It replaces the environment's."""


@dataclass(frozen=True, slots=True)
class _Credential:
    token: str = field(repr=False)
    file: str | None


class Connection:
    """Shared by all resources of one provider process."""

    def __init__(self, cancel: threading.Event, environment: Mapping[str, str] = os.environ) -> None:
        self._cancel = cancel
        self._environment = environment
        self._lock = threading.Lock()
        self._settings: ClientSettings | None = None
        self._client: Client | None = None
        self._unknown: list[str] = []
        self._namespace = DEFAULT_NAMESPACE
        self._plan_checks: Checks = "warn"
        self.reads = SharedReads(self.client)
        self.rehearsals = Rehearsals(self.client, lambda: self._plan_checks)

    @property
    def deferred(self) -> bool:
        return bool(self._unknown)

    @property
    def namespace(self) -> Any:
        """Where a microVM goes that names no namespace; UNKNOWN while the configuration is."""
        return UNKNOWN if "namespace" in self._unknown else self._namespace

    def configure(self, config: Object, report: Report) -> None:
        values = {name: self._value(config, name) for name in ENVIRONMENT}
        self._unknown = [name for name, value in values.items() if value is UNKNOWN]
        self._plan_checks = "off" if self._unknown else values["plan_checks"] or "warn"
        if isinstance(values["namespace"], str):
            self._namespace = values["namespace"]
        if self._unknown:
            return
        credential = _credential(config, values, report)
        self._check(values, report)
        if not report.failed and credential is not None:
            self._settings = ClientSettings(
                endpoints=tuple(values["endpoints"]),
                token=credential.token,
                token_file=credential.file,
                ca_file=values["ca_file"],
                client_certificate=values["client_certificate"],
                client_key=values["client_key"],
            )

    def client(self) -> Client:
        """Raises ProviderError while the configuration is unknown or incomplete."""
        with self._lock:
            if self._client is None:
                if self._settings is None:
                    names = ", ".join(self._unknown) or "endpoints, token"
                    raise error(
                        "The Flintlock provider is not configured yet",
                        f"Its {names} depend on values that Terraform learns only during apply. Apply what they "
                        "depend on first (terraform apply -target=...), or give them by FLINTLOCK_* variables.",
                    )
                self._client = Client(self._settings, self._cancel)
            return self._client

    def interrupt(self) -> None:
        """Terraform is interrupted: whoever waits for the API is woken."""
        with self._lock:
            client = self._client
        if client is not None:
            client.interrupt()

    def _value(self, config: Object, name: str) -> Any:
        value: Any = config.get(name)
        if any(part is UNKNOWN for part in as_list(value) or ()):
            return UNKNOWN
        if value is not None:
            return value
        text = self._environment.get(ENVIRONMENT[name]) or None
        if name == "endpoints" and text is not None:
            return [part.strip() for part in text.split(",") if part.strip()]
        return text

    def _check(self, values: Mapping[str, Any], report: Report) -> None:
        if not values["endpoints"]:
            _missing(report, "endpoints", 'endpoints = ["https://10.0.0.1:8443", ...]', "a comma-separated list")
        for endpoint in values["endpoints"] or ():
            problem = check_endpoint(endpoint)
            if problem:
                report.error("Invalid endpoint", f"{problem}.", attribute("endpoints"))
        if values["plan_checks"] not in (None, *CHECKS):
            allowed = ", ".join(CHECKS)
            report.error("Invalid plan_checks", f"It is one of {allowed}.", attribute("plan_checks"))
        for name in ("ca_file", "client_certificate", "client_key"):
            if values[name] and not _readable(values[name]):
                report.error(f"Cannot read {name}", f'There is no readable file "{values[name]}".', attribute(name))
        _check_certificates(values, report)
        if bool(values["client_certificate"]) != bool(values["client_key"]):
            missing = "client_key" if values["client_certificate"] else "client_certificate"
            report.error(f"{missing} is missing", "A client certificate needs its key.", attribute(missing))


def _credential(config: Object, values: Mapping[str, Any], report: Report) -> _Credential | None:
    """The one token that is to be sent; None where there is none, which the report says."""
    written = [name for name in _TOKENS if config.get(name) is not None]
    if len(written) > 1:
        report.error("Two credentials", f"{written[0]} says already who this is.", attribute(written[1]))
        return None
    name = next((each for each in written or _TOKENS if values[each]), None)
    if name is None:
        _missing(report, "token", "token = var.flintlock_token", "the token")
        return None
    value, file = str(values[name]), None
    if name.endswith("_file"):
        file = value
        try:
            value = read_token(file)
        except (OSError, ValueError):
            report.error(f"Cannot read {name}", f'There is no readable token in "{file}".', attribute(name))
            return None
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        report.error(
            f"Invalid {name}", "It has characters that no token has (was it read with a newline?).", attribute(name)
        )
        return None
    return _Credential(value, file)


def _missing(report: Report, name: str, example: str, what: str) -> None:
    report.error(
        f"The provider's {name} is missing",
        f"Write {example} into the provider block, or set {ENVIRONMENT[name]} to {what}.",
        attribute(name),
    )


def _check_certificates(values: Mapping[str, Any], report: Report) -> None:
    """Files that cannot be what they should be are found now, not by a handshake that fails again and again."""
    if report.failed:
        return
    import ssl  # after the handshake, like everything that connecting needs

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if values["ca_file"]:
        try:
            context.load_verify_locations(values["ca_file"])
        except ssl.SSLError:
            report.error(
                "Invalid ca_file", f'There is no PEM certificate in "{values["ca_file"]}".', attribute("ca_file")
            )
    if values["client_certificate"] and values["client_key"]:
        try:
            context.load_cert_chain(values["client_certificate"], values["client_key"], password=_no_password)
        except (ssl.SSLError, ValueError):
            report.error(
                "Invalid client_certificate",
                f'"{values["client_certificate"]}" and "{values["client_key"]}" are not a PEM certificate and its key, '
                "without a passphrase.",
                attribute("client_certificate"),
            )


def _no_password() -> str:
    """Never ask at a terminal."""
    return ""


def _readable(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.R_OK)
