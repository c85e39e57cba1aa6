"""flintctl apply and delete -f: resources from files, declared or deleted in one go."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from typing import Annotated

import typer

from controlplane.cli import diff, documents, options, output
from controlplane.cli.client import Client
from controlplane.cli.commands.microvm import failure_message
from controlplane.cli.commands.resources import await_gone, confirm, delete_path
from controlplane.cli.documents import Document
from controlplane.cli.errors import CliError, ProblemError, problem_details
from controlplane.cli.options import NamespaceOption, ReasonOption, YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, mapping, objects, text

FilesOption = Annotated[
    list[str],
    typer.Option(
        "--file", "-f", metavar="FILE|DIR|-", help="YAML or JSON; a directory; `-` is standard input. Repeatable."
    ),
]
_DIFF_LIMIT = 100
"""Resources up to which a diff is worth one read each."""
_SIGN = {"created": "+", "changed": "~", "unchanged": "=", "deleted": "-", "refused": "!"}
_WAIT_TARGETS = ("settled", "running", "ready")


def apply(
    ctx: typer.Context,
    files: FilesOption,
    namespace: NamespaceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")] = False,
    atomic: Annotated[bool, typer.Option("--atomic", help="All of it or nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the hosts confirm every microVM.")] = False,
    wait_for: Annotated[
        str, typer.Option("--wait-for", metavar="|".join(_WAIT_TARGETS), help="What --wait waits for.")
    ] = "settled",
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that --wait waits at most.")] = 300,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Declare resources from files: create what is new, change what differs, leave the rest.

    \b
    Examples:
      flintctl apply -f fleet/ --dry-run
      flintctl apply -f web.yaml --wait --wait-for ready
      flintctl vm show demo/web-a -o yaml | sed 's/web-a/web-b/' | flintctl apply -f -

    \b
    A resource:
      kind: MicroVM
      name: web-a
      namespace: demo
      spec: {vcpu: 1, memory_in_mb: 128, kernel: {image: "demo/kernel"}, initrd: {image: "demo/initrd:1"}}
    """
    if wait_for not in _WAIT_TARGETS:
        raise typer.BadParameter(f"{wait_for!r} is not one of {', '.join(_WAIT_TARGETS)}", param_hint="--wait-for")
    wanted = documents.read(files, namespace=namespace or options.connection(ctx).namespace)
    client = options.client(ctx)
    before = {} if dry_run else _present(client, wanted)
    results = _send(client, wanted, atomic=atomic, dry_run=dry_run)
    if output.machine_readable(form):
        output.dump({"results": results}, form)
    else:
        _report(client, wanted, results, before, dry_run=dry_run)
    refused = sum(result.get("outcome") == "refused" for result in results)
    if refused:
        nothing = "; nothing was changed" if atomic and not dry_run else ""
        raise CliError(f"{refused} of {len(results)} resources were refused{nothing}")
    if wait and not dry_run:
        _await(client, wanted, wait_for, timeout_s, quiet=output.machine_readable(form))


def delete(
    ctx: typer.Context,
    files: FilesOption,
    namespace: NamespaceOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until the hosts confirm that nothing is left.")] = True,
    reason: ReasonOption = None,
    yes: YesOption = False,
) -> None:
    """Delete the resources that files name, microVMs first. Specs in the files do not matter.

    \b
    Example:
      flintctl delete -f fleet/ --reason "the trial is over"
    """
    wanted = documents.read(files, namespace=namespace or options.connection(ctx).namespace)
    wanted.reverse()
    confirm(f"Delete {len(wanted)} resources ({', '.join(document.label for document in wanted[:5])}...)?", yes=yes)
    client = options.client(ctx)
    pending: list[Document] = []
    for document in wanted:
        if document.kind not in documents.NAMESPACED and wait:
            # A namespace or host can only go once its microVMs are confirmed gone.
            _await_deletions(client, pending)
        outcome = delete_path(client, document.path, document.label, wait=False, reason=reason)
        if outcome == "deleting":
            pending.append(document)
        print(f"- {document.label}: {outcome}", flush=True)
    if wait:
        _await_deletions(client, pending)


def _await_deletions(client: Client, pending: list[Document]) -> None:
    while pending:
        document = pending.pop(0)
        print(f"- {document.label}: {await_gone(client, document.path, document.label)}", flush=True)


def _send(client: Client, wanted: Sequence[Document], *, atomic: bool, dry_run: bool) -> list[Json]:
    body: Json = {"atomic": atomic, "resources": [document.resource for document in wanted]}
    if not dry_run:
        body["idempotency_key"] = uuid.uuid4().hex
    try:
        answer = client.request("POST", "/apply", body=body, params={"dry_run": "true"} if dry_run else None)
    except ProblemError as problem:
        raise _located(problem, wanted) from None
    return objects(answer.body, "results")


def _located(problem: ProblemError, wanted: Sequence[Document]) -> ProblemError:
    """`/resources/3/spec/vcpu` names the file and the field instead of a place in our request."""
    errors: list[Json] = []
    for error in objects(problem.body.get("errors")):
        parts = str(error.get("pointer", "")).split("/")
        pointer = error.get("pointer")
        if parts[1:2] == ["resources"] and len(parts) > 2 and parts[2].isdigit() and int(parts[2]) < len(wanted):
            document = wanted[int(parts[2])]
            pointer = f"{document.source}: {document.label}: /{'/'.join(parts[3:])}"
        errors.append({**error, "pointer": pointer})
    return ProblemError(problem.status, {**problem.body, "errors": errors})


def _present(client: Client, wanted: Sequence[Document]) -> dict[tuple[str, str, str], Json]:
    if len(wanted) > _DIFF_LIMIT:
        return {}
    found = ((document.key, client.find(document.path)) for document in wanted)
    return {key: resource for key, resource in found if resource is not None}


def _report(
    client: Client,
    wanted: Sequence[Document],
    results: Sequence[Json],
    before: dict[tuple[str, str, str], Json],
    *,
    dry_run: bool,
) -> None:
    sources = {document.key: document for document in wanted}
    counts: dict[str, int] = {}
    for result in results:
        outcome = text(result.get("outcome"))
        counts[outcome] = counts.get(outcome, 0) + 1
        key = (text(result.get("kind")), text(result.get("namespace")), text(result.get("name")))
        document = sources.get(key)
        label = document.label if document else " ".join(filter(None, key))
        print(f"{_SIGN.get(outcome, '?')} {label}: {outcome}")
        if problem := mapping(result, "problem"):
            print("".join(f"    {line}\n" for line in _why(problem, document.source if document else "")), end="")
        elif outcome == "changed" and document is not None:
            lines = _planned(client, document) if dry_run else _happened(client, document, before.get(key))
            print("".join(f"    {line}\n" for line in lines), end="")
    would = "would be " if dry_run else ""
    print("\n" + ", ".join(f"{count} {would}{outcome}" for outcome, count in counts.items()))


def _why(problem: Json, source: str) -> list[str]:
    """Why a resource was refused: the fields of its own that it is about, else the whole of it."""
    own = [
        {**error, "pointer": re.sub(r"^/resources/[0-9]+", "", text(error.get("pointer")))}
        for error in objects(problem, "errors")
    ]
    lines = [line.strip() for line in problem_details({**problem, "errors": own})]
    whole = [] if own else [text(problem.get("detail") or problem.get("title"))]
    return [line if line.startswith("hint: ") else f"{source}: {line}" for line in [*whole, *lines]]


def _happened(client: Client, document: Document, before: Json | None) -> list[str]:
    after = client.find(document.path) if before is not None else None
    if before is None or after is None:
        return []
    parts = [(f"/{part}", mapping(before, part), mapping(after, part)) for part in ("labels", "annotations", "spec")]
    return [
        f"{pointer}: {diff.shown(old)} -> {diff.shown(new)}"
        for root, was, now in parts
        for pointer, old, new in diff.changes(was, now, root)
    ]


def _planned(client: Client, document: Document) -> list[str]:
    body = {part: document.resource[part] for part in documents.BODY if part in document.resource}
    plan = client.request("PUT", document.path, params={"dry_run": "true"}, body=body).body
    lines = [
        f"{c['pointer']}: {diff.shown(c.get('from'))} -> {diff.shown(c.get('to'))} ({c.get('effect')})"
        for c in objects(plan, "changes")
    ]
    return [*lines, *(f"warning: {warning}" for warning in plan.get("warnings") or ())]


def _await(client: Client, wanted: Sequence[Document], target: str, timeout_s: float, *, quiet: bool) -> None:
    give_up = time.monotonic() + timeout_s
    for document in (document for document in wanted if document.kind == "MicroVM"):
        while True:
            left_s = give_up - time.monotonic()
            if left_s <= 0:
                raise CliError(
                    f"{document.label} is not {target} after {timeout_s:.0f} s", hint="`flintctl vm show` says why"
                )
            params = {"wait_for": target, "wait_s": max(1, min(20, int(left_s)))}
            answer = client.get(document.path, params, read_timeout_s=40)
            outcome = answer.headers.get("Flintlock-Wait", "done")
            if outcome == "failed":
                raise CliError(f"{document.label} failed: {failure_message(answer.body)}")
            if outcome == "done":
                if not quiet:
                    print(f"{document.label}: {target} on {text(dig(answer.body, 'status', 'host'))}", flush=True)
                break
