"""Attributes and checks that several resources share. Patterns are those of the API, which has the last word."""

from __future__ import annotations

from provider_shim.framework.schema import Attribute, Block, Nested, Validator
from provider_shim.framework.types import NUMBER, STRING, MapOf
from provider_shim.framework.validate import at_most, between, duration, keys_match, matches

_NAME = (
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    "a name: lower-case letters, digits and dashes, at most 63, no dash at either end",
)
NAME = matches(*_NAME)
NAME_KEYS = keys_match(*_NAME)
LABEL_KEY_PATTERN = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LABEL_KEYS = keys_match(LABEL_KEY_PATTERN, "a label key, such as rack or example.com/rack")
LABEL_KEY = matches(LABEL_KEY_PATTERN, "a label key, such as rack or example.com/rack")
DEVICE_KEYS = keys_match(
    r"[A-Za-z0-9]([A-Za-z0-9._-]{0,30}[A-Za-z0-9])?",
    "an id: letters, digits, dots, dashes and underscores, at most 32, a letter or digit at either end",
)


def name_attribute(what: str) -> Attribute:
    return Attribute(
        type=STRING, required=True, on_change="replace", validators=(NAME,), description=f"Name of the {what}."
    )


def id_attribute(form: str) -> Attribute:
    return Attribute(
        type=STRING,
        computed=True,
        keep_state=True,
        never_null=True,
        description=f"`{form}`; what `terraform import` takes.",
    )


def uid_attribute() -> Attribute:
    return Attribute(
        type=STRING,
        computed=True,
        keep_state=True,
        never_null=True,
        description="Identity that the control plane gave it; never used twice, even for the same name.",
    )


def labels_attribute(description: str) -> Attribute:
    return Attribute(
        type=MapOf(STRING),
        optional=True,
        on_change="live",
        validators=(LABEL_KEYS, at_most(64)),
        description=description,
    )


def annotations_attribute() -> Attribute:
    return Attribute(
        type=MapOf(STRING),
        optional=True,
        on_change="live",
        validators=(LABEL_KEYS, at_most(64)),
        description="Notes for people and tools; nothing is selected by them.",
    )


def namespace_attribute() -> Attribute:
    return Attribute(
        type=STRING,
        optional=True,
        computed=True,
        on_change="replace",
        validators=(NAME,),
        description="Namespace it lives in; the provider's `namespace` if unset.",
    )


def spread_fields(counted: str) -> dict[str, Attribute]:
    """What `counted` things are spread over, and how many of them stay together."""
    return {
        "by": Attribute(
            type=STRING,
            default="host",
            validators=(LABEL_KEY,),
            description="Host label to spread over; `host` means each host for itself.",
        ),
        "max_per": Attribute(
            type=NUMBER,
            default=1,
            validators=(between(1, 10_000),),
            description=f"How many {counted} one value of the label may hold.",
        ),
    }


def spread_attribute() -> Attribute:
    return Attribute(
        type=Nested(
            "single",
            {
                **spread_fields("of the matching microVMs"),
                "match_labels": Attribute(
                    type=MapOf(STRING),
                    optional=True,
                    validators=(LABEL_KEYS,),
                    description="Labels of the microVMs that are counted; none counts all of the namespace.",
                ),
            },
        ),
        optional=True,
        on_change="live",
        description="Keeps microVMs apart.",
    )


def host_labels_attribute(description: str) -> Attribute:
    return Attribute(
        type=MapOf(STRING), optional=True, on_change="live", validators=(LABEL_KEYS,), description=description
    )


def timeouts_block(*operations: str) -> Block:
    checks: tuple[Validator, ...] = (duration,)
    return Block(
        "How long to wait, such as `90s`, `5m` or `1h30m`.",
        {
            name: Attribute(type=STRING, optional=True, validators=checks, description=f"For {name}; default `5m`.")
            for name in operations
        },
    )
