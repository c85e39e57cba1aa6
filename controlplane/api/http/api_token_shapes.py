"""What `/api-tokens` is asked and answers. No answer but that of a creation and a rotation holds a secret."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from controlplane.api.http.access_views import LimitShape, limit_shape
from controlplane.api.http.declarations import Input
from controlplane.api.http.shape import Continue, Shape
from controlplane.api.http.times import Timestamp, iso
from controlplane.machine.state import State
from controlplane.model.access import AccessLimit
from controlplane.model.api_tokens import MAX_DESCRIPTION, MAX_GROUPS, ApiToken
from controlplane.model.types import LINE_PATTERN, Integer, Name, SubjectName

MAX_OVERLAP_S = 7 * 86_400
_Ttl = Annotated[
    Integer | None, Field(ge=60, description="Ends so long from now; null: as the settings of the node say.")
]


class NewApiToken(Input):
    name: Name
    user: Annotated[SubjectName | None, Field(description="Whom it speaks for, besides `token/NAME`.")] = None
    groups: Annotated[list[SubjectName], Field(max_length=MAX_GROUPS)] = Field(default_factory=list[SubjectName])
    limit: Annotated[AccessLimit, Field(description="Takes away from what bindings give it; gives nothing.")] = (
        AccessLimit()
    )
    description: Annotated[str, StringConstraints(pattern=LINE_PATTERN, max_length=MAX_DESCRIPTION)] = ""
    ttl_s: _Ttl = None


class Rotation(Input):
    ttl_s: Annotated[Integer | None, Field(ge=60, description="Ends so long from now; null: when it would have.")] = (
        None
    )
    overlap_s: Annotated[
        Integer, Field(ge=0, le=MAX_OVERLAP_S, description="The secret before stays good so long.")
    ] = 0


class ApiTokenShape(Shape):
    name: str
    uid: str
    user: str | None
    groups: list[str]
    limits: list[LimitShape] = Field(description="All of them hold: its own, and those of the token that made it.")
    description: str
    created_at: Timestamp
    created_by: str
    expires_at: Timestamp
    rotated_at: Timestamp | None
    retired_until: Timestamp | None = Field(description="So long the secret before the last rotation is good.")
    last_used_at: Timestamp | None = Field(description="To some minutes.")


class ApiTokenSecret(ApiTokenShape):
    secret: str = Field(description="Nobody can be told it again.")


class ApiTokenList(Shape):
    items: list[ApiTokenShape]
    revision: int
    continue_: Continue


def api_token(_state: State, token: ApiToken) -> ApiTokenShape:
    return ApiTokenShape.model_validate(_common(token))


def with_secret(token: ApiToken, secret: str) -> ApiTokenSecret:
    return ApiTokenSecret.model_validate({**_common(token), "secret": secret})


def _common(token: ApiToken) -> dict[str, object]:
    return {
        "name": token.name,
        "uid": token.uid,
        "user": token.spec.user,
        "groups": token.spec.groups,
        "limits": [limit_shape(each) for each in token.limits],
        "description": token.spec.description,
        "created_at": iso(token.created_at),
        "created_by": token.created_by,
        "expires_at": iso(token.expires_at),
        "rotated_at": iso(token.rotated_at),
        "retired_until": iso(token.retired.until) if token.retired is not None else None,
        "last_used_at": iso(token.last_used_at),
    }
