"""Options that several commands share, and how a command gets at the connection."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from controlplane.cli.client import Client
from controlplane.cli.context import Connection, Flags

NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="Namespace; else FLINTLOCK_NAMESPACE, else `default`."),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only what carries this label; may be repeated."),
]
VmArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the microVM, or NAMESPACE/NAME.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; shown wherever the deletion is.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9]\d{0,5})([smhd])")
_NODE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def new_app(help_text: str) -> typer.Typer:
    """A group of commands: without a command it shows its help."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def connection(ctx: typer.Context) -> Connection:
    root = ctx.find_root()
    if not isinstance(root.obj, Connection):
        root.obj = Connection(Flags())
    return root.obj


def client(ctx: typer.Context) -> Client:
    return connection(ctx).client()


def microvm_path(ctx: typer.Context, name: str, namespace: str | None) -> str:
    return namespaced_path(ctx, "/microvms", name, namespace)


def namespaced_path(ctx: typer.Context, collection: str, name: str, namespace: str | None) -> str:
    """Path of what is in a namespace, which `name` may hold itself."""
    prefix, separator, last = name.rpartition("/")
    chosen = prefix if separator else namespace or connection(ctx).namespace
    if separator and namespace is not None and namespace != prefix:
        raise typer.BadParameter(f"{name!r} names another namespace than --namespace {namespace}")
    return f"/namespaces/{segment(chosen, 'namespace')}{collection}/{segment(last, 'name')}"


def segment(value: str, what: str) -> str:
    """One safe part of a path. The API knows the full rules; this keeps a typo from becoming another path."""
    if (
        not value
        or not value.isascii()
        or not value.replace("-", "").replace(".", "").isalnum()
        or value.startswith(".")
    ):
        raise typer.BadParameter(f"{value!r} is not a {what}: lower-case letters, digits and '-'")
    return value


def seconds(duration: str, hint: str) -> int:
    """Of a duration that the option `hint` was given."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise typer.BadParameter(f"{duration!r} is not a duration such as 90s, 30m, 2h or 7d", param_hint=hint)
    return int(match[1]) * _UNITS_S[match[2]]


def node_segment(value: str) -> str:
    """A node's id as a safe part of a path."""
    if not _NODE.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is not a node's id: 1 to 63 of a-z 0-9 . _ -")
    return value


def now_ms() -> int:
    return time.time_ns() // 1_000_000
