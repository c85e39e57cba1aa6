"""Which issuers a node trusts, and what it makes of their claims."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Algorithm(StrEnum):
    """Only those whose verification needs a public key: a shared secret, or none, is never a proof."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    ED25519 = "EdDSA"


def checked_url(url: str) -> str:
    """`url`, if nobody between here and there can change what it answers. Raises ValueError."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
        raise ValueError("must be https://HOST[:PORT][/PATH], without credentials, query or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("must be https; http is for an issuer on this machine alone")
    return url


Url = Annotated[str, StringConstraints(max_length=1024), AfterValidator(checked_url)]
Claim = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Prefix = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9:._/-]{0,62})$")]


class OidcIssuer(BaseModel):
    """One issuer of tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Url
    """As its tokens say it in `iss`, to the letter; its keys are found from there."""
    audiences: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=16)]
    """A token has to be for one of these: the client id of `flintctl login`, what a pipeline asks for."""
    prefix: Prefix = "oidc:"
    """In front of every user and group, so that none can be taken for one of the tokens file or another issuer."""
    username_claim: Claim = "sub"
    group_claims: Annotated[list[Claim], Field(max_length=16)] = ["groups"]
    """A claim that is a list gives a group by each of its values, one that is text the group `CLAIM=VALUE`."""
    required_claims: Annotated[dict[Claim, str], Field(max_length=16)] = {}
    """What a token has to say besides."""
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = [Algorithm.RS256, Algorithm.ES256]
    leeway_s: Annotated[int, Field(ge=0, le=300)] = 30
    """How far its clock and ours may differ."""
    ca_file: Path | None = None
    """PEM of the authority of its certificate; else the system's."""
