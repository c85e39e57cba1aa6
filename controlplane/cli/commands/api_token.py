"""flintctl api-token: credentials of the API for programs. The secret goes to stdout or into a file, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import columns, options, output
from controlplane.cli.commands.resources import confirm, fetch_list
from controlplane.cli.errors import CliError
from controlplane.cli.options import YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, mapping, objects, text
from controlplane.identity import storage
from controlplane.model.access import Verb

_PATH = "/api-tokens"
_VERBS = ", ".join(verb.value for verb in Verb if verb is not Verb.ANY)

app = options.new_app(
    """API tokens: what programs authenticate with. What one may do, role bindings say.

\b
Examples:
  flintctl api-token create ci --group web-team --ttl 30d --out ci.token
  flintctl api-token create look --user alice --verb read
  flintctl api-token list
  flintctl api-token rotate ci --overlap 1h --out ci.token
  flintctl api-token revoke ci
"""
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the token: `token/NAME` in role bindings.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the secret there (mode 0600), and not to stdout.")
]
Ttl = Annotated[str | None, typer.Option("--ttl", metavar="DURATION", help="How long it lasts: 90s, 30m, 2h, 7d.")]


@app.command()
def create(
    ctx: typer.Context,
    name: NameArgument,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="Whom it speaks for.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="A group it is in; may be repeated.")
    ] = None,
    verb: Annotated[
        list[str] | None,
        typer.Option("--verb", metavar="VERB", help=f"Only this may be done with it: {_VERBS}; may be repeated."),
    ] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only there; may be repeated.")
    ] = None,
    ttl: Ttl = None,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    out: Out = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Make a token and tell its secret, which nobody can be told again."""
    if out is not None and out.exists():
        raise CliError(f"{out} exists already", hint="`flintctl api-token rotate` replaces the secret in a file")
    body: Json = {
        "name": name,
        "user": user,
        "groups": group or [],
        "limit": {"verbs": verb or ["*"], "namespaces": namespace or ["*"]},
        "description": description,
        "ttl_s": options.seconds(ttl, "--ttl") if ttl is not None else None,
    }
    made = options.client(ctx).request("POST", _PATH, body=body, repeatable=False).body
    _tell(made, out, form, done="made")


@app.command("list")
def list_(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """List the tokens, without their secrets."""
    items, revision = fetch_list(options.client(ctx), _PATH, {})
    if output.machine_readable(form):
        output.dump({"items": items, "revision": revision}, form)
        return
    now_ms = options.now_ms()
    rows = [
        [
            text(each.get("name")),
            text(each.get("user")),
            ",".join(map(str, each.get("groups") or [])),
            _limits(each),
            text(each.get("expires_at")),
            columns.age(each.get("last_used_at"), now_ms) or "never",
            text(each.get("created_by")),
        ]
        for each in items
    ]
    headers = ["NAME", "USER", "GROUPS", "LIMITS", "EXPIRES", "USED", "MADE BY"]
    output.table(headers, rows, empty="No API tokens found.")


@app.command()
def show(ctx: typer.Context, name: NameArgument, form: Output = OutputFormat.TABLE) -> None:
    """Show what is known of a token."""
    found = options.client(ctx).get(f"{_PATH}/{options.segment(name, 'name')}").body
    if output.machine_readable(form):
        output.dump(found, form)
    else:
        output.pairs(_described(found))


@app.command()
def rotate(
    ctx: typer.Context,
    name: NameArgument,
    overlap: Annotated[
        str | None, typer.Option("--overlap", metavar="DURATION", help="So long the secret before stays good.")
    ] = None,
    ttl: Ttl = None,
    out: Out = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Give a token another secret. FILE of --out is replaced."""
    body: Json = {
        "overlap_s": options.seconds(overlap, "--overlap") if overlap is not None else 0,
        "ttl_s": options.seconds(ttl, "--ttl") if ttl is not None else None,
    }
    path = f"{_PATH}/{options.segment(name, 'name')}/actions/rotate"
    _tell(options.client(ctx).request("POST", path, body=body, repeatable=False).body, out, form, done="rotated")


@app.command()
def revoke(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    yes: YesOption = False,
) -> None:
    """Revoke tokens, at once and at every node."""
    paths = [f"{_PATH}/{options.segment(name, 'name')}" for name in names]
    confirm(f"Revoke {', '.join(names)}?", yes=yes)
    client = options.client(ctx)
    for name, path in zip(names, paths, strict=True):
        client.request("DELETE", path)
        print(f"API token {name}: revoked")


def _tell(made: Json, out: Path | None, form: OutputFormat, *, done: str) -> None:
    secret = text(made.get("secret"))
    shown = {key: value for key, value in made.items() if key != "secret"}
    if out is not None:
        storage.replace(out, secret.encode() + b"\n", mode=0o600)
    if output.machine_readable(form):
        output.dump(shown if out is not None else made, form)
        return
    where = f"its secret is in {out}" if out is not None else "nobody can be told this secret again"
    typer.echo(f"API token {text(made.get('name'))} {done} until {text(made.get('expires_at'))}; {where}", err=True)
    if out is None:
        print(secret)


def _limits(token: Json) -> str:
    """The limits that take something away, as `read,declare in web`."""
    parts: list[str] = []
    for limit in objects(token, "limits"):
        verbs, namespaces = (",".join(map(str, limit.get(key) or [])) for key in ("verbs", "namespaces"))
        if (verbs, namespaces) != ("*", "*"):
            parts.append(verbs + (f" in {namespaces}" if namespaces != "*" else ""))
    return "; ".join(parts)


def _described(token: Json) -> list[tuple[str, str]]:
    found = mapping(token)
    return [
        ("Name", text(found.get("name"))),
        ("User", text(found.get("user"))),
        ("Groups", ", ".join(map(str, found.get("groups") or []))),
        ("Limits", _limits(found)),
        ("Description", text(found.get("description"))),
        ("Made", f"{text(found.get('created_at'))} by {text(found.get('created_by'))}"),
        ("Rotated", text(found.get("rotated_at"))),
        ("Old secret", f"good until {found['retired_until']}" if found.get("retired_until") else ""),
        ("Expires", text(found.get("expires_at"))),
        ("Last used", text(found.get("last_used_at")) or "never"),
    ]
