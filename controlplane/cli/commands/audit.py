"""flintctl audit: who changed or tried what, and proof that the records of it are whole.

`verify` recomputes every hash. It believes files no more than the API: given both, it also asks the API for the record
that the files end with, so that an export and a node's chain vouch for each other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from controlplane.cli import options, output
from controlplane.cli.client import Client, Params
from controlplane.cli.errors import DIFFERENCES, CliError
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, objects, text
from controlplane.model.audit import AuditRecord, BrokenChainError, followed, line_of, read_lines

_PAGE = 1000
_POLL_S = 1.0
_HEADERS = ("SEQ", "AT", "ACTOR", "ACTION", "WHAT", "OUTCOME", "FROM", "WHY")

app = options.new_app(
    """Who changed or tried what, from where, and what came of it.

\b
Examples:
  flintctl audit list --actor ci --outcome refused
  flintctl audit tail
  flintctl audit export -o audit.jsonl
  flintctl audit verify /var/lib/flintlock/n1/audit/*.jsonl     the files alone, without a cluster
  flintctl audit verify --live *.jsonl                          and that the cluster's chain goes on from them
"""
)
ActorOption = Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Only what this caller did.")]
ActionOption = Annotated[str | None, typer.Option("--action", metavar="COMMAND", help="Such as `declare_microvm`.")]
KindOption = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Such as MicroVM.")]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of the object.")]
OutcomeOption = Annotated[str | None, typer.Option("--outcome", metavar="OUTCOME", help="Such as `refused`.")]
SinceOption = Annotated[
    datetime | None, typer.Option("--since", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Of this UTC time on.")
]


@app.command("list")
def list_records(
    ctx: typer.Context,
    actor: ActorOption = None,
    action: ActionOption = None,
    kind: KindOption = None,
    namespace: options.NamespaceOption = None,
    name: NameOption = None,
    outcome: OutcomeOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="The newest so many.")] = 50,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Show the newest records that match, the oldest of them first."""
    wanted: dict[str, str | int | None] = {
        "actor": actor,
        "action": action,
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "outcome": outcome,
        "since": round(since.replace(tzinfo=UTC).timestamp() * 1000) if since is not None else None,
    }
    query = {key: value for key, value in wanted.items() if value is not None}
    answer = options.client(ctx).get("/audit", {**query, "limit": limit, "newest": "true"}).body
    if output.machine_readable(form):
        output.dump(answer, form)
    else:
        output.table(_HEADERS, [_row(each) for each in objects(answer, "items")], empty="No record matches.")


@app.command()
def tail(ctx: typer.Context) -> None:
    """Print records as they come, one line each, until interrupted."""
    client = options.client(ctx)
    after = dig(client.get("/audit", {"limit": 1, "newest": "true"}).body, "head", "sequence") or 0
    while True:
        items = objects(client.get("/audit", {"limit": _PAGE, "continue": str(after)}).body, "items")
        for each in items:
            after = each["sequence"]
            print("  ".join(cell for cell in _row(each) if cell))
        sys.stdout.flush()
        if len(items) < _PAGE:
            time.sleep(_POLL_S)


@app.command()
def export(
    ctx: typer.Context,
    target: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else standard output.")] = None,
) -> None:
    """Write what the cluster holds of the chain as JSON lines, verified, as the nodes' own files have it."""
    if target is None:
        _write(sys.stdout.buffer, options.client(ctx))
        return
    # Never over another export; and it is for its owner alone.
    try:
        target.touch(mode=0o600, exist_ok=False)
        with target.open("wb") as file:
            count = _write(file, options.client(ctx))
    except OSError as error:
        raise CliError(f"{target}: {error.strerror}", hint="name a file that does not exist") from None
    print(f"{target}: {count} records")


@app.command()
def verify(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Exports, in the order of the chain; else the cluster."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Compare the end of the files with the cluster's chain.")
    ] = False,
) -> None:
    """Recompute the chain. Exit code 2, and the first record that does not hold, when anything of it was changed."""
    first, last = _checked(_read(files) if files else _held(options.client(ctx)))
    if first is None or last is None:
        print("There is no record.")
        return
    print(f"Records {first.sequence} to {last.sequence} hold; the last one's hash is {last.hash}")
    if first.sequence > 1:
        print(f"The chain before record {first.sequence} is not in it.")
    if files and live:
        _compare(options.client(ctx), last)


# -- inside ------------------------------------------------------------------------------------------------------------


def _checked(records: Iterator[AuditRecord]) -> tuple[AuditRecord | None, AuditRecord | None]:
    first: AuditRecord | None = None
    last: AuditRecord | None = None
    try:
        for last in followed(records):
            first = first or last
    except BrokenChainError as error:
        raise CliError(f"the audit chain is broken at {error}", exit_code=DIFFERENCES) from None
    return first, last


def _read(files: list[Path]) -> Iterator[AuditRecord]:
    for path in files:
        try:
            with path.open("rb") as file:
                yield from read_lines(file)
        except BrokenChainError as error:
            raise CliError(f"the audit chain is broken: {path}: {error}", exit_code=DIFFERENCES) from None
        except OSError as error:
            raise CliError(f"{path}: {error.strerror}") from None


def _held(client: Client) -> Iterator[AuditRecord]:
    query: dict[str, str | int] = {"limit": _PAGE}
    while True:
        page = client.get("/audit", query).body
        yield from (_record(each) for each in objects(page, "items"))
        if page.get("continue") is None:
            return
        query["continue"] = page["continue"]


def _record(item: Json) -> AuditRecord:
    try:
        return msgspec.convert({name: value for name, value in item.items() if value is not None}, AuditRecord)
    except msgspec.ValidationError as error:
        raise CliError(f"the cluster answered what is no audit record: {error}") from None


def _write(file: BinaryIO, client: Client) -> int:
    count = 0
    try:
        for each in followed(_held(client)):
            file.write(line_of(each))
            count += 1
    except BrokenChainError as error:
        raise CliError(f"the audit chain is broken at {error}", exit_code=DIFFERENCES) from None
    return count


def _compare(client: Client, last: AuditRecord) -> None:
    query: Params = {"limit": 2, "continue": str(last.sequence - 1)}
    answer = client.get("/audit", query).body
    held = [_record(each) for each in objects(answer, "items")]
    head = dig(answer, "head", "sequence") or 0
    if head < last.sequence:
        raise CliError(f"the cluster's chain ends at {head}, the files at {last.sequence}", exit_code=DIFFERENCES)
    follows = held[0].sequence == last.sequence + 1 and held[0].previous == last.hash
    if held[0].sequence > last.sequence + 1:
        raise CliError(f"the cluster holds its chain from record {held[0].sequence} on: nothing can be compared")
    if held[0].hash != last.hash and not follows:
        message = f"record {last.sequence} of the files is not the cluster's"
        raise CliError(message, exit_code=DIFFERENCES)
    print(f"The cluster's chain, which ends at {head}, has the same record {last.sequence}.")


def _row(each: Json) -> list[str]:
    where = "/".join(filter(None, (text(each.get("namespace")), text(each.get("name")))))
    outcome = text(each.get("outcome"))
    why = text(each.get("code") or each.get("status") or each.get("reason"))
    count = each.get("count") or 1
    return [
        text(each.get("sequence")),
        datetime.fromtimestamp((each.get("at") or 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        text(each.get("actor")),
        text(each.get("action")),
        " ".join(filter(None, (text(each.get("kind")), where))),
        outcome if count == 1 else f"{outcome} x{count}",
        text(each.get("address")),
        why,
    ]
