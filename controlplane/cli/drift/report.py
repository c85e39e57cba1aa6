"""What was found, in one shape for every format: the API's drift, and a Terraform plan beside it where there is one.

Pure: the texts are made here once, bounded and free of control characters, because guests, agents and providers wrote
some of them and the formats end up in terminals, comments and dashboards.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from controlplane.cli import columns
from controlplane.cli.drift.classes import Class
from controlplane.cli.errors import CliError
from controlplane.cli.values import Json, mapping, objects, text

VALUE_LIMIT = 300
"""Characters of one value or cause; the rest is cut."""


@dataclass(frozen=True, slots=True)
class Difference:
    pointer: str
    """JSON pointer of the field; empty for the object as a whole."""
    desired: str = ""
    observed: str = ""
    since: str = ""
    """RFC 3339, or empty."""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    klass: Class
    resource: str
    """As a person calls it: `MicroVM demo/web-a`, or the Terraform address."""
    identity: str
    """Stays the same from run to run, whatever is wrong with it."""
    host: str = ""
    address: str = ""
    """Where Terraform manages it: `module.web.flintlock_microvm.this["a"]`."""
    actions: tuple[str, ...] = ()
    """What Terraform says was done or is to be done: `create`, `update`, `delete`."""
    differences: tuple[Difference, ...] = ()

    def fingerprint(self, difference: Difference | None = None) -> str:
        """Of class, object and field: the same for as long as the same thing is wrong, whatever its value."""
        pointer = difference.pointer if difference is not None else ""
        return hashlib.sha256("\n".join((self.klass, self.identity, pointer)).encode()).hexdigest()

    def sentence(self, difference: Difference | None = None) -> str:
        """One line about the finding, or about one field of it."""
        where = (
            f" on host {self.host}" if self.host and self.klass not in (Class.CHANGED_OUTSIDE, Class.PLANNED) else ""
        )
        if difference is None:
            return f"{self.resource}{where}: {self.klass.value.replace('_', ' ')}"
        field = difference.pointer or "it"
        told = f"{field} is {difference.observed or '(none)'}, declared is {difference.desired or '(none)'}"
        if self.klass is Class.PLANNED:
            told = f"{field} changes from {difference.observed or '(none)'} to {difference.desired or '(none)'}"
        if self.klass is Class.UNREACHABLE:
            told = f"{field} was last seen as {difference.observed or '(none)'}"
        cause = f" ({difference.cause})" if difference.cause else ""
        return f"{self.resource}{where}: {told}{cause}"


@dataclass(frozen=True, slots=True)
class Report:
    revision: int
    findings: tuple[Finding, ...]
    fail_on: frozenset[Class]

    @property
    def fails(self) -> bool:
        """Whether something was found that this run is to fail on."""
        return bool(self.failing)

    @property
    def failing(self) -> list[Finding]:
        return [each for each in self.findings if each.klass in self.fail_on]

    def of(self, klass: Class) -> list[Finding]:
        return [each for each in self.findings if each.klass is klass]

    def counts(self) -> dict[Class, int]:
        """How many there are of each class that occurs, in the order of the classes."""
        found = Counter(each.klass for each in self.findings)
        return {klass: found[klass] for klass in Class if found[klass]}


def from_api(answer: Json) -> list[Finding]:
    """The findings of an answer of `/drift`. Raises CliError for a class that this program does not know."""
    return [_finding(item) for item in objects(answer, "items")]


def with_addresses(findings: Iterable[Finding], addresses: Mapping[str, str]) -> list[Finding]:
    """The same, with the Terraform address of each whose identity is in `addresses`."""
    return [replace(each, address=addresses.get(each.identity, "")) for each in findings]


def clean(value: object) -> str:
    """Printable text of bounded length, on one line."""
    printable = "".join(character if character.isprintable() else " " for character in text(value))
    return printable if len(printable) <= VALUE_LIMIT else f"{printable[: VALUE_LIMIT - 3]}..."


def _finding(item: Json) -> Finding:
    named = text(item.get("class"))
    try:
        klass = Class(named)
    except ValueError:
        raise CliError(
            f"the control plane tells of drift class {clean(named)!r}, which this flintctl does not know",
            hint="use the flintctl of the control plane's version",
        ) from None
    resource = clean(columns.target_name(item))
    return Finding(
        klass=klass,
        resource=resource,
        identity=clean(item.get("uid")) or f"{resource} on {clean(item.get('host'))}",
        host=clean(item.get("host")),
        differences=tuple(_difference(field) for field in objects(item, "fields")),
    )


def _difference(field: Json) -> Difference:
    shown = mapping(field)
    return Difference(
        pointer=clean(shown.get("pointer")),
        desired=clean(shown.get("desired")),
        observed=clean(shown.get("observed")),
        since=clean(shown.get("since")),
        cause=clean(shown.get("cause")),
    )
