"""Path, query and header parameters, each defined once with its limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Depends, Header, Path, Query
from pydantic import StringConstraints

from controlplane.api.http import problems
from controlplane.model.commands import Precondition
from controlplane.model.types import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, LINE_PATTERN, NAME_PATTERN

DEFAULT_LIMIT = 500
MAX_LIMIT = 5000
_ETAG = re.compile(r'^(?:"(\d{1,18})"|(\d{1,18}))$')
_KEY = re.compile(r"^[\x21-\x7e]{1,128}$")

NameParam = Annotated[str, Path(alias="name", pattern=NAME_PATTERN, description="The object's name.")]
NamespaceParam = Annotated[str, Path(alias="namespace", pattern=NAME_PATTERN, description="Its namespace.")]
UidParam = Annotated[str, Path(alias="uid", pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]
OperationIdParam = Annotated[str, Path(alias="id", pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

NameFilter = Annotated[str | None, Query(alias="name", pattern=NAME_PATTERN, description="Only this name.")]
NamesFilter = Annotated[
    list[Annotated[str, StringConstraints(pattern=NAME_PATTERN)]],
    Query(alias="name", max_length=64, description="Only this name; repeat it to ask for several."),
]
NamespaceFilter = Annotated[str | None, Query(alias="namespace", pattern=NAME_PATTERN)]
HostFilter = Annotated[str | None, Query(alias="host", pattern=NAME_PATTERN, description="Only what is placed here.")]
LabelFilter = Annotated[
    list[str], Query(alias="label", max_length=16, description="`key=value`; repeat it to ask for several labels.")
]
LimitParam = Annotated[int, Query(alias="limit", ge=1, le=MAX_LIMIT)]
ContinueParam = Annotated[str | None, Query(alias="continue", max_length=512, description="From the page before.")]
ConsistencyParam = Annotated[
    Literal["linearizable", "stale"],
    Query(
        alias="consistency",
        description="`stale` reads this node's replica as it is, and `Flintlock-Age` tells how many seconds old that"
        " may be; otherwise every write acknowledged before is seen, or the answer is 503.",
    ),
]
ReasonParam = Annotated[
    str,
    Query(
        alias="reason",
        max_length=1024,
        pattern=LINE_PATTERN,
        description="Why it is deleted; shown wherever the deletion is.",
    ),
]
DryRunParam = Annotated[bool, Query(alias="dry_run", description="Say what would happen; change nothing.")]
IfMatchHeader = Annotated[str | None, Header(alias="if-match", description='The revision it must have: `"42"`.')]
IfNoneMatchHeader = Annotated[str | None, Header(alias="if-none-match", description="`*`: only create.")]
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(alias="idempotency-key", description="Repeating a request with its key, within 24 h, does it once."),
]


def precondition(if_match: str | None, if_none_match: str | None) -> Precondition:
    """What the two headers demand. Raises ApiError."""
    if if_none_match is not None and if_none_match.strip() != "*":
        raise problems.invalid("/header/if-none-match", "only * is supported")
    if if_match is not None and if_none_match is not None:
        raise problems.invalid("/header/if-match", "cannot be combined with If-None-Match")
    return Precondition(revision=parse_etag(if_match), create_only=if_none_match is not None)


async def expected_revision(if_match: IfMatchHeader = None) -> int | None:
    return parse_etag(if_match)


def idempotency_key(key: str | None) -> str | None:
    """The key if it is one. Raises ApiError."""
    if key is not None and _KEY.fullmatch(key) is None:
        raise problems.invalid("/header/idempotency-key", "must be 1 to 128 printable ASCII characters without spaces")
    return key


async def _asked_key(key: IdempotencyKeyHeader = None) -> str | None:
    return idempotency_key(key)


ExpectedRevision = Annotated[int | None, Depends(expected_revision)]
Key = Annotated[str | None, Depends(_asked_key)]


def parse_etag(value: str | None) -> int | None:
    """The revision in an `If-Match` header. Raises ApiError."""
    if value is None:
        return None
    match = _ETAG.fullmatch(value.strip())
    if match is None:
        raise problems.invalid("/header/if-match", 'must be one revision in quotes, such as "42"')
    return int(match[1] or match[2])


def parse_labels(values: Sequence[str]) -> dict[str, str]:
    """`key=value` selectors. Raises ApiError."""
    wanted: dict[str, str] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if (
            not separator
            or re.fullmatch(LABEL_KEY_PATTERN, key) is None
            or re.fullmatch(LABEL_VALUE_PATTERN, text) is None
        ):
            raise problems.invalid("/query/label", "must be key=value, of a valid label key and value")
        if wanted.get(key, text) != text:
            raise problems.invalid("/query/label", f"asks for two values of {key}: nothing has both")
        wanted[key] = text
    return wanted
