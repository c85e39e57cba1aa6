"""flintctl host: the machines that run microVMs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import typer

from controlplane.cli import options
from controlplane.cli.client import Client
from controlplane.cli.columns import age
from controlplane.cli.commands import host_evacuation, resources
from controlplane.cli.errors import CliError
from controlplane.cli.options import YesOption
from controlplane.cli.values import Json, dig, text

_OFF = """\
You say that these hosts are certainly off and stay off: the power was cut, or somebody stands in front of them.
What their microVMs' policies allow is then restarted elsewhere at once, also what the host may still keep running, and
also while the breaker is open. Nothing checks it: on a host that runs after all, there will be two of each."""

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the host, as its certificate has it.")]
NamesArgument = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Names of the hosts, as their certificates have them.")
]

app = resources.cluster_wide(
    resources.HOST,
    """Hosts: admit agents, keep new microVMs away, empty them, see capacity.

\b
Examples:
  flintctl host list                       capacity, and agents that wait to be admitted
  flintctl host admit h4 h5 --set rack=b   let agents in
  flintctl host cordon h4                  what runs stays, nothing new comes
  flintctl host drain h4                   what may run elsewhere is moved there
  flintctl host maintenance h4             as drain, and the rest is shut down meanwhile
  flintctl host rejoin h4 --dry-run        what h4 would do with what is on it
  flintctl host confirm-fenced h4          h4 fell silent and is certainly off
""",
)

host_evacuation.add_to(app)


@app.command()
def admit(
    ctx: typer.Context,
    names: NamesArgument,
    labels: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Label for each of them; may be repeated.")
    ] = None,
) -> None:
    """Declare hosts, so that their agents are given work."""
    pairs = dict(label.split("=", 1) for label in resources.check_labels(labels))
    client = options.client(ctx)
    for name in names:
        if client.find(_path(name)) is not None:
            raise CliError(f"host {name} is admitted already", hint=f"flintctl host show {name}")
    body: Json = {"labels": pairs, "spec": {"schedulable": True}}
    for name in names:
        client.request("PUT", _path(name), body=body, headers={"If-None-Match": "*"})
        print(f"host {name}: admitted")


@app.command()
def cordon(ctx: typer.Context, names: NamesArgument) -> None:
    """Keep new microVMs away; what runs there stays."""
    _act(options.client(ctx), names, "cordon")


@app.command()
def uncordon(ctx: typer.Context, names: NamesArgument) -> None:
    """Let new microVMs come again; ends a drain or a maintenance: what has left stays where it is."""
    _act(options.client(ctx), names, "uncordon")


@app.command()
def adopt(
    ctx: typer.Context,
    name: NameArgument,
    instance: Annotated[str, typer.Argument(help="How the host names it: NATIVE_ID of `flintctl gc plan`.")],
    to: Annotated[str, typer.Option("--name", metavar="[NAMESPACE/]NAME", help="What it is to be called.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whether it may be; change nothing.")] = False,
) -> None:
    """Declare a microVM that the host runs and nobody declares any more, such as after a restore. It runs on."""
    namespace, _, short = to.rpartition("/")
    namespace = namespace or options.connection(ctx).namespace
    body: Json = {"instance": instance, "namespace": namespace, "name": short}
    path = f"{_path(name)}/actions/adopt"
    params = {"dry_run": "true"} if dry_run else None
    answer = options.client(ctx).request("POST", path, params=params, body=body).body
    for warning in cast("list[str]", answer.get("warnings") or []):
        typer.echo(f"warning: {warning}", err=True)
    verb = "would be adopted (dry run)" if dry_run else "adopted"
    print(f"microvm {namespace}/{short}: {verb} on host {name}, where it runs as {instance}")


@app.command("confirm-fenced")
def confirm_fenced(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Hosts that fell silent.")],
    yes: YesOption = False,
) -> None:
    """Say that lost hosts are certainly off, so that their microVMs are restarted elsewhere."""
    client, now_ms = options.client(ctx), options.now_ms()
    # As in `_act`.
    hosts = [client.get(_path(name)).body for name in names]
    typer.echo(_OFF, err=True)
    for name, host in zip(names, hosts, strict=True):
        seen = age(dig(host, "status", "last_seen_at"), now_ms) or "never"
        count = text(dig(host, "status", "allocated", "microvms")) or "0"
        typer.echo(f"  {name}: {text(dig(host, 'status', 'phase'))}, last seen {seen} ago, {count} microVMs", err=True)
    if not yes and not typer.get_text_stream("stdin").isatty():
        raise CliError("nobody is there to be asked", hint="say --yes if the hosts are certainly off")
    resources.confirm(f"Are {', '.join(names)} certainly off?", yes=yes)
    for name in names:
        host = client.request("POST", f"{_path(name)}/actions/confirm-fenced").body
        waits = dig(host, "status", "phase") == "detached"
        print(
            f"host {name}: confirmed as off" + ("; fenced once its last lease has ended, in seconds" if waits else "")
        )


def _act(client: Client, names: Sequence[str], action: str) -> None:
    # All are read before anything is done: a mistyped name must not leave half of it done.
    before = {name: client.get(_path(name)).body for name in names}
    for name in names:
        after = client.request("POST", f"{_path(name)}/actions/{action}").body
        print(f"host {name}: {action}ed" + (" already" if after["revision"] == before[name]["revision"] else ""))


def _path(name: str) -> str:
    return f"/hosts/{options.segment(name, 'name')}"
