"""flintctl events: what happened lately, from the cluster's own memory of it.

Following asks again every second for what came after the last event that was read. An event's id means the same at
every node, so it goes on at another node when one does not answer, and misses and repeats nothing.
"""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.client import Client
from controlplane.cli.columns import age
from controlplane.cli.errors import ProblemError
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, objects, text
from controlplane.model.event_records import Reason
from controlplane.model.types import Kind

_POLL_S = 1.0
_PAGE = 1000
_HEADERS = ("AGE", "TYPE", "REASON", "OBJECT", "HOST", "MESSAGE")
_WIDE = (*_HEADERS, "ACTOR", "AT", "ID")
_PASSING = frozenset({"no_leader", "no_majority", "not_ready"})

Query = dict[str, str | int | list[str]]


def events(
    ctx: typer.Context,
    kind: Annotated[Kind | None, typer.Option("--kind", metavar="KIND", help="Such as MicroVM.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only in this namespace; else in all.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of the object.")] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME", help="About this host, and what is or was on it.")
    ] = None,
    reason: Annotated[
        list[Reason] | None, typer.Option("--reason", metavar="REASON", help="Such as Placed; may be repeated.")
    ] = None,
    warnings: Annotated[bool, typer.Option("--warnings", help="Only what one would want to look at.")] = False,
    since: Annotated[str | None, typer.Option("--since", metavar="DURATION", help="Such as 30m, 2h or 7d.")] = None,
    start: Annotated[
        int | None, typer.Option("--from", min=0, metavar="REVISION", help="Only above this revision.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="The newest so many.")] = 50,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with what comes, until Ctrl-C.")] = False,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Show what happened lately, the oldest first: placed, running, drifted, lost, moved, and why.

    The cluster remembers the newest ten thousand events; where that cuts what was asked for, it says so. With --watch
    and -o json, one object per line.

    \b
    Examples:
      flintctl events --since 1h --warnings
      flintctl events --host h2 --reason Detached --reason Resurrected
      flintctl events -n demo --name web --watch
    """
    wanted: dict[str, str | int | list[str] | None] = {
        "kind": kind.value if kind is not None else None,
        "namespace": namespace,
        "name": name,
        "host": host,
        "reason": [each.value for each in reason] if reason else None,
        "type": "warning" if warnings else None,
        "since": options.now_ms() - 1000 * options.seconds(since, "--since") if since is not None else None,
        "from": start,
    }
    query: Query = {key: value for key, value in wanted.items() if value is not None}
    client = options.client(ctx)
    answer = client.get("/events", {**query, "limit": limit, "newest": "true"}).body
    items = objects(answer, "items")
    if watch:
        _tell_of_cut(answer)
        _print_lines(items, form)
        _follow(client, query, items[-1]["id"] if items else f"{answer['revision']}.999999999", form)
    elif output.machine_readable(form):
        output.dump(answer, form)
    else:
        _tell_of_cut(answer)
        wide = form is OutputFormat.WIDE
        now_ms = options.now_ms()
        rows = [_row(each, now_ms)[: len(_WIDE if wide else _HEADERS)] for each in items]
        output.table(_WIDE if wide else _HEADERS, rows, empty="No event matches.")


def _tell_of_cut(answer: Json) -> None:
    """To stderr, where older events were asked for than there are."""
    if answer.get("more"):
        typer.echo("Earlier events match, too: --limit shows more.", err=True)
    elif not answer.get("complete"):
        oldest = text(answer.get("oldest_at")) or f"revision {text(answer.get('revision'))}"
        typer.echo(f"What was before {oldest} is forgotten.", err=True)


def _follow(client: Client, query: Query, last: str, form: OutputFormat) -> None:
    """Print what comes after the event `last`, until interrupted."""
    while True:
        try:
            answer = client.get("/events", {**query, "limit": _PAGE, "continue": last}).body
        except ProblemError as problem:
            if problem.code not in _PASSING:
                raise
            typer.echo(f"{problem.message}; trying again.", err=True)
            time.sleep(_POLL_S)
            continue
        if not answer.get("complete"):
            typer.echo(f"Events after {last} were forgotten before they were read.", err=True)
        items = objects(answer, "items")
        _print_lines(items, form)
        if items:
            last = str(items[-1]["id"])
        elif not answer.get("complete"):
            last = f"{answer['revision']}.999999999"
        if not answer.get("more"):
            time.sleep(_POLL_S)


def _print_lines(items: list[Json], form: OutputFormat) -> None:
    for each in items:
        if output.machine_readable(form):
            print(json.dumps(each, ensure_ascii=False), flush=True)
        else:
            _, *cells = _row(each, 0)[: len(_HEADERS)]
            line = "  ".join([text(each.get("at")), *(cell for cell in cells if cell)])
            print(output.one_line(line), flush=True)


def _row(each: Json, now_ms: int) -> list[str]:
    where = "/".join(filter(None, (text(each.get("namespace")), text(each.get("name")))))
    return [
        age(each.get("at"), now_ms),
        text(each.get("type")),
        text(each.get("reason")),
        f"{text(each.get('kind'))} {where}",
        text(each.get("host")),
        text(each.get("message")),
        text(each.get("actor")),
        text(each.get("at")),
        text(each.get("id")),
    ]
