"""flintctl group: look at groups of microVMs, wait for them, delete them."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from controlplane.cli import options
from controlplane.cli.columns import GROUP
from controlplane.cli.commands import resources
from controlplane.cli.commands.resources import ResourceKind
from controlplane.cli.errors import CliError
from controlplane.cli.options import LabelOption, NamespaceOption, ReasonOption, YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, objects, text

KIND = ResourceKind("MicroVMGroup", "group", "groups", "/microvmgroups", GROUP)
GroupArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name, or NAMESPACE/NAME.")]
_POLL_S = 0.5

app = options.new_app(
    """Groups: so many microVMs of one template, rolled to the next one by the control plane.

\b
Examples:
  flintctl group list -A            every group, and how far it is
  flintctl group wait demo/web      until all of it is as declared and ready
  flintctl apply -f old.yaml        a rollback: declare the old template again
"""
)


@app.command("list")
def list_(
    ctx: typer.Context,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    label: LabelOption = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """List groups: of every namespace unless one is named (--namespace or FLINTLOCK_NAMESPACE)."""
    chosen = None if everywhere else namespace or options.connection(ctx).explicit_namespace
    path = KIND.path if chosen is None else f"/namespaces/{options.segment(chosen, 'namespace')}{KIND.path}"
    items, revision = resources.fetch_list(options.client(ctx), path, {"label": resources.check_labels(label)})
    resources.print_list(KIND, items, revision, form)


@app.command()
def show(
    ctx: typer.Context, name: GroupArgument, namespace: NamespaceOption = None, form: Output = OutputFormat.TABLE
) -> None:
    """Show one group: what is declared, how far it is, and why it does not go on."""
    resources.print_one(options.client(ctx).get(_path(ctx, name, namespace)).body, form)


@app.command()
def wait(
    ctx: typer.Context,
    name: GroupArgument,
    namespace: NamespaceOption = None,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait.")] = "10m",
) -> None:
    """Wait until a group is complete, and say how far it is meanwhile. Fails as soon as it is paused."""
    client, path = options.client(ctx), _path(ctx, name, namespace)
    give_up = time.monotonic() + options.seconds(timeout, "--timeout")
    said = ""
    while True:
        group = client.get(path).body
        told = _condition(group, "Progressing")
        message = text(told.get("message"))
        if dig(group, "status", "complete"):
            print(f"group {name}: {message}")
            return
        if _condition(group, "Paused").get("status") == "true":
            raise CliError(
                f"group {name} is paused: {text(told.get('reason'))}: {message}",
                hint="declare a template that gets ready, or the one before",
            )
        if message != said:
            print(f"group {name}: {message}", file=sys.stderr)
            said = message
        if time.monotonic() >= give_up:
            raise CliError(f"group {name} is not complete after {timeout}: {message}")
        time.sleep(_POLL_S)


@app.command()
def delete(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, or NAMESPACE/NAME.")],
    namespace: NamespaceOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until its last member is gone.")] = True,
    reason: ReasonOption = None,
    yes: YesOption = False,
) -> None:
    """Delete groups, with their members and the members' volumes."""
    targets = [(name, _path(ctx, name, namespace)) for name in names]
    resources.confirm(f"Delete group {', '.join(names)} with all its members?", yes=yes)
    resources.report_deletions(options.client(ctx), KIND, targets, wait=wait, reason=reason)


def _path(ctx: typer.Context, name: str, namespace: str | None) -> str:
    return options.namespaced_path(ctx, KIND.path, name, namespace)


def _condition(group: Json, type_: str) -> Json:
    return next((each for each in objects(group, "status", "conditions") if each.get("type") == type_), Json())
