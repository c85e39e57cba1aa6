"""list, show and delete: the same for every kind of resource."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from controlplane.cli import columns, describe, options, output
from controlplane.cli.client import Client
from controlplane.cli.columns import Column
from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.options import LabelOption, NamespaceOption, ReasonOption, YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, objects

PAGE = 500
DELETE_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class ResourceKind:
    kind: str
    noun: str
    plural: str
    path: str
    columns: Sequence[Column]


HOST = ResourceKind("Host", "host", "hosts", "/hosts", columns.HOST)
NAMESPACE = ResourceKind("Namespace", "namespace", "namespaces", "/namespaces", columns.NAMESPACE)
POLICY = ResourceKind("PlacementPolicy", "placement policy", "placement policies", "/placementpolicies", columns.POLICY)
FAILOVER_POLICY = ResourceKind(
    "FailoverPolicy", "failover policy", "failover policies", "/failoverpolicies", columns.FAILOVER_POLICY
)
GC_POLICY = ResourceKind("GCPolicy", "GC policy", "GC policies", "/gcpolicies", columns.GC_POLICY)
ROLE = ResourceKind("Role", "role", "roles", "/roles", columns.ROLE)
ROLE_BINDING = ResourceKind("RoleBinding", "role binding", "role bindings", "/rolebindings", columns.ROLE_BINDING)
MICROVM = ResourceKind("MicroVM", "microVM", "microVMs", "/microvms", columns.MICROVM)
OPERATION = ResourceKind("Operation", "operation", "operations", "/operations", columns.OPERATION)


def pages(client: Client, path: str, params: dict[str, str | int | Sequence[str]]) -> Iterator[Json]:
    """Every page of a list."""
    token: str | None = None
    while True:
        page = client.get(path, {**params, "limit": PAGE, **({"continue": token} if token else {})}).body
        yield page
        token = page.get("continue")
        if not token:
            return


def print_list(kind: ResourceKind, items: Sequence[Json], revision: int | None, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump({"items": list(items), "revision": revision}, form)
        return
    shown = [column for column in kind.columns if form is OutputFormat.WIDE or not column.wide]
    now_ms = options.now_ms()
    rows = [[column.cell(item, now_ms) for column in shown] for item in items]
    output.table([column.header for column in shown], rows, empty=f"No {kind.plural} found.")


def print_one(resource: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(resource, form)
    else:
        describe.show(resource, options.now_ms())


def fetch_list(
    client: Client, path: str, params: dict[str, str | int | Sequence[str]]
) -> tuple[list[Json], int | None]:
    items: list[Json] = []
    revision: int | None = None
    for page in pages(client, path, params):
        items += objects(page, "items")
        revision = revision or page.get("revision")
    return items, revision


def check_labels(labels: list[str] | None) -> list[str]:
    for label in labels or ():
        if "=" not in label or label.startswith("="):
            raise typer.BadParameter(f"{label!r} is not KEY=VALUE", param_hint="--label")
    return labels or []


def delete_path(client: Client, path: str, name: str, *, wait: bool, reason: str | None = None) -> str:
    """Ask for the deletion, for `reason`; gives `deleted`, `deleting` or `not found`."""
    try:
        answer = client.request("DELETE", path, params={"reason": reason} if reason else None)
    except ProblemError as problem:
        if problem.code == "not_found":
            return "not found"
        raise
    if answer.status == 200:
        return "deleted"
    if not wait:
        return "deleting"
    return await_gone(client, path, name)


def await_gone(client: Client, path: str, name: str) -> str:
    give_up = time.monotonic() + DELETE_WAIT_S
    while time.monotonic() < give_up:
        try:
            if "/microvms/" in path:
                client.get(path, {"wait_for": "gone", "wait_s": 20}, read_timeout_s=40)
            else:
                client.get(path)
        except ProblemError as problem:
            if problem.code == "not_found":
                return "deleted"
            raise
        time.sleep(0.2)
    raise CliError(
        f"{name} is still being deleted after {DELETE_WAIT_S:.0f} s",
        hint="its host must confirm; `flintctl host list` shows whether it is reachable",
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere --yes is not needed, since a script means what it says."""
    if yes or not typer.get_text_stream("stdin").isatty():
        return
    typer.confirm(question, abort=True, err=True)


def cluster_wide(kind: ResourceKind, help_text: str) -> typer.Typer:
    """list, show and delete for a kind that is in no namespace."""
    app = options.new_app(help_text)

    @app.command("list", help=f"List {kind.plural}.")
    def list_(ctx: typer.Context, label: LabelOption = None, form: Output = OutputFormat.TABLE) -> None:
        items, revision = fetch_list(options.client(ctx), kind.path, {"label": check_labels(label)})
        print_list(kind, items, revision, form)

    @app.command(help=f"Show one {kind.noun}.")
    def show(
        ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")], form: Output = OutputFormat.TABLE
    ) -> None:
        path = f"{kind.path}/{options.segment(name, 'name')}"
        params = {"include_pending": "true"} if kind is HOST else None
        print_one(options.client(ctx).get(path, params).body, form)

    @app.command(help=f"Delete {kind.plural}.")
    def delete(
        ctx: typer.Context,
        names: Annotated[list[str], typer.Argument(metavar="NAME...")],
        reason: ReasonOption = None,
        yes: YesOption = False,
    ) -> None:
        paths = [f"{kind.path}/{options.segment(name, 'name')}" for name in names]
        confirm(f"Delete {kind.noun} {', '.join(names)}?", yes=yes)
        report_deletions(options.client(ctx), kind, list(zip(names, paths, strict=True)), wait=True, reason=reason)

    return app


def report_deletions(
    client: Client,
    kind: ResourceKind,
    targets: Sequence[tuple[str, str]],
    *,
    wait: bool,
    reason: str | None = None,
) -> None:
    missing = 0
    for name, path in targets:
        outcome = delete_path(client, path, f"{kind.noun} {name}", wait=wait, reason=reason)
        missing += outcome == "not found"
        print(f"{kind.noun} {name}: {outcome}")
    if missing:
        raise CliError(f"{missing} of {len(targets)} did not exist")


namespaces = cluster_wide(NAMESPACE, "Namespaces and their quotas.")
policies = cluster_wide(POLICY, "Placement policies.")
failover_policies = cluster_wide(FAILOVER_POLICY, "Failover policies: when and in what order microVMs are restarted.")
gc_policies = cluster_wide(
    GC_POLICY, "The GC policy `default`: how long what nobody needs is kept; without it the nodes' settings hold."
)
roles = cluster_wide(ROLE, "Roles: what may be done with what. Declare them with `flintctl apply -f`.")
role_bindings = cluster_wide(ROLE_BINDING, "Role bindings: who has which role, and where.")
operations = options.new_app("Long work that accepted commands started.")


@operations.command("list")
def list_operations(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """List operations, the newest last."""
    items, revision = fetch_list(options.client(ctx), OPERATION.path, {})
    print_list(OPERATION, items, revision, form)


@operations.command("show")
def show_operation(
    ctx: typer.Context,
    operation: Annotated[str, typer.Argument(metavar="ID", help="As `flintctl vm show` gives it.")],
    form: Output = OutputFormat.TABLE,
) -> None:
    """Show one operation."""
    print_one(options.client(ctx).get(f"{OPERATION.path}/{options.segment(operation, 'id')}").body, form)


def list_microvms(
    ctx: typer.Context,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    label: LabelOption = None,
    host: Annotated[str | None, typer.Option("--host", metavar="NAME", help="Only what is placed there.")] = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """List microVMs: of every namespace unless one is named (--namespace or FLINTLOCK_NAMESPACE)."""
    params: dict[str, str | int | Sequence[str]] = {"label": check_labels(label)}
    if host is not None:
        params["host"] = host
    chosen = None if everywhere else namespace or options.connection(ctx).explicit_namespace
    path = MICROVM.path if chosen is None else f"/namespaces/{options.segment(chosen, 'namespace')}/microvms"
    items, revision = fetch_list(options.client(ctx), path, params)
    print_list(MICROVM, items, revision, form)
