"""flintctl gc, hold and release: what is collected and why, doing exactly that, and what is to stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from controlplane.cli import options, output
from controlplane.cli.columns import age
from controlplane.cli.commands.resources import confirm
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, mapping, objects, text

_SUMMED = "finished_operation"
"""There are many of them, and one is like the other: what waits of these is one line."""

app = options.new_app(
    """Garbage collection: what nobody needs any more, when it goes, and why.

\b
Examples:
  flintctl gc plan                          what a run would collect now, and what waits for what
  flintctl gc run --only failed_microvm     collect exactly what the plan shows
  flintctl gc status                        the policy, and what was collected so far
  flintctl gc purge h4 quarantine/UID-EPOCH --reason "nobody wants it back" --dry-run
  flintctl hold microvm/demo/web-a --reason "the crash is looked at"
"""
)
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="TRIGGER", help="Of this trigger alone; may be repeated.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, max=1000, help="Collect at most so many.")]
YesOption = options.YesOption
SubjectArgument = Annotated[
    str, typer.Argument(metavar="KIND/NAME", help="microvm/[NAMESPACE/]NAME, host/NAME or found/HOST/ID.")
]


@app.command()
def plan(
    ctx: typer.Context, only: OnlyOption = None, limit: LimitOption = None, form: Output = OutputFormat.TABLE
) -> None:
    """Show what a run would collect now, in its order, and what is not collected yet: why, and until when."""
    made = _fetch(ctx, only, limit)
    if output.machine_readable(form):
        output.dump(made, form)
    else:
        _print_plan(made)


@app.command()
def run(
    ctx: typer.Context,
    only: OnlyOption = None,
    limit: LimitOption = None,
    yes: YesOption = False,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Collect exactly what the plan shows; nothing is done when that has changed meanwhile."""
    made = _fetch(ctx, only, limit)
    if not output.machine_readable(form):
        _print_collect(made)
    count = len(objects(made, "collect"))
    if count:
        confirm(f"Collect these {count}?", yes=yes)
    done = options.client(ctx).request("POST", "/gc/run", body={"plan": made["plan"], "only": only or []}).body
    if output.machine_readable(form):
        output.dump(done, form)
        return
    outcomes = Counter(text(each.get("outcome")) for each in objects(done, "results"))
    print(f"{outcomes['collected']} collected" + (f", {outcomes['refused']} refused" if outcomes["refused"] else ""))
    for each in objects(done, "results"):
        if each.get("outcome") == "refused":
            print(f"  {_subject(each)}: {text(each.get('message'))}")


@app.command()
def purge(
    ctx: typer.Context,
    host: Annotated[str, typer.Argument(help="Where it is.")],
    left: Annotated[str, typer.Argument(help="How `flintctl host show` and `flintctl gc plan` call it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it goes before its time.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whether it may go; change nothing.")] = False,
    yes: YesOption = False,
) -> None:
    """Order the end, now, of something that a destroyed microVM left on its host, such as kept volumes."""
    path, body = f"/hosts/{quote(host, safe='')}/actions/purge", {"left": left, "reason": reason}
    client = options.client(ctx)
    seen = client.request("POST", path, params={"dry_run": "true"}, body=body).body
    print(f"{_subject(seen)}: {text(seen.get('reason'))}")
    if dry_run:
        print("would be ordered to go (dry run)")
        return
    confirm("Delete it for good?", yes=yes)
    client.request("POST", path, body=body)
    print("ordered to go; `flintctl host show` tells of it until it is gone")


@app.command()
def status(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show the policy, and for each trigger what is due, what waits and what was collected."""
    answer = options.client(ctx).get("/gc/status").body
    if output.machine_readable(form):
        output.dump(answer, form)
        return
    now_ms = options.now_ms()
    rows = [
        [
            text(each.get("trigger")),
            "for ever" if each.get("after_s") is None else f"{text(each.get('after_s'))} s",
            text(each.get("due")),
            ", ".join(f"{count} {reason}" for reason, count in mapping(each, "waiting").items()),
            age(each.get("oldest_since"), now_ms),
            text(each.get("collected")),
            age(dig(each, "last", "at"), now_ms),
            text(dig(each, "last", "subject")),
        ]
        for each in objects(answer, "triggers")
    ]
    name = dig(answer, "policy", "name")
    print(f"GC policy: {name}" if name is not None else "GC policy: none is declared; this node's settings say")
    output.table(["TRIGGER", "KEPT", "DUE", "WAITING FOR", "OLDEST", "COLLECTED", "LAST", "WHAT"], rows, empty="")


@app.command()
def holds(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """List what is held, by whom and why."""
    _print_holds(options.client(ctx).get("/gc/holds").body, form)


def hold(
    ctx: typer.Context,
    subject: SubjectArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why it is to stay; shown to whoever is refused.")],
) -> None:
    """Say that something is to stay: it is neither collected nor deleted, by anybody, until it is released.

    \b
    Examples:
      flintctl hold microvm/demo/web-a --reason "the crash is looked at"
      flintctl hold host/h4 --reason "its disks are read out"
      flintctl hold found/h4/9 --reason "whose is it?"
    """
    options.client(ctx).request("POST", "/gc/hold", body={**_thing(ctx, subject), "reason": reason})
    print(f"{subject}: held")


def release(ctx: typer.Context, subject: SubjectArgument) -> None:
    """Take a hold back, whoever gave it."""
    options.client(ctx).request("POST", "/gc/release", body=_thing(ctx, subject))
    print(f"{subject}: released")


def _thing(ctx: typer.Context, subject: str) -> Json:
    match subject.split("/", 2):
        case ["microvm", namespace, name]:
            return {"kind": "MicroVM", "namespace": namespace, "name": name}
        case ["microvm", name]:
            return {"kind": "MicroVM", "namespace": options.connection(ctx).namespace, "name": name}
        case ["host", name]:
            return {"kind": "Host", "name": name}
        case ["found", host, id_]:
            return {"kind": "Found", "host": host, "name": id_}
        case _:
            raise typer.BadParameter(
                f"{subject!r} is not microvm/[NAMESPACE/]NAME, host/NAME or found/HOST/ID", param_hint="KIND/NAME"
            )


def _fetch(ctx: typer.Context, only: list[str] | None, limit: int | None) -> Json:
    params: dict[str, str | int | Sequence[str]] = {"only": only or []}
    if limit is not None:
        params["limit"] = limit
    return options.client(ctx).get("/gc/plan", params).body


def _print_plan(made: Json) -> None:
    _print_collect(made)
    waiting = objects(made, "waiting")
    shown = [each for each in waiting if each.get("trigger") != _SUMMED]
    rows = [
        [text(each.get("trigger")), _subject(each), text(each.get("waits_for")), text(each.get("message"))]
        for each in shown
    ]
    if summed := len(waiting) - len(shown):
        rows.append([_SUMMED, f"{summed} operations", "", "they are kept for a while"])
    if rows:
        print("\nNot yet")
        output.table(["TRIGGER", "WHAT", "WAITS FOR", "MESSAGE"], rows, empty="")


def _print_collect(made: Json) -> None:
    now_ms = options.now_ms()
    rows = [
        [text(each.get("trigger")), _subject(each), age(each.get("since"), now_ms), text(each.get("reason"))]
        for each in objects(made, "collect")
    ]
    output.table(["TRIGGER", "WHAT", "SINCE", "REASON"], rows, empty="Nothing is to be collected now.")


def _print_holds(answer: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(answer, form)
        return
    now_ms = options.now_ms()
    rows = [
        [
            "/".join(text(each.get(part)) for part in ("kind", "namespace", "host", "name") if each.get(part)).lower(),
            text(each.get("actor")),
            age(each.get("at"), now_ms),
            text(each.get("reason")),
        ]
        for each in objects(answer, "items")
    ]
    output.table(["HELD", "BY", "FOR", "REASON"], rows, empty="Nothing is held.")


def _subject(each: Json) -> str:
    subject = mapping(each, "subject")
    name = "/".join(text(subject.get(part)) for part in ("namespace", "name") if subject.get(part))
    host = text(subject.get("host"))
    kind = text(subject.get("kind"))
    return f"{kind} {name}" + (f" on {host}" if host and kind != "Host" else "")
