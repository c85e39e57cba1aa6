"""flintctl host drain, maintenance and rejoin: what becomes of a host's microVMs, shown while it happens.

The cluster does the work, whoever watches: a command that is interrupted, or gives up, changes nothing of it. What is
said at the end is what the API says: `drained` and `in maintenance` only when nothing is left.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.client import Client
from controlplane.cli.commands import resources
from controlplane.cli.errors import CliError
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, mapping, objects, text

POLL_S = 0.5
_DONE = {"drain": "drained", "maintenance": "in maintenance"}
_WORDS = {
    "drain": "microVMs that may run elsewhere are shut down and started there, without what is on ephemeral volumes",
    "maintenance": "as a drain, and what cannot be moved is shut down where it is until you uncordon the host",
}

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the host.")]
WaitOption = Annotated[bool, typer.Option(help="Wait until nothing is left, and show how far it is.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to wait.")]
ParallelOption = Annotated[
    int | None,
    typer.Option("--max-parallel", min=1, max=100, metavar="N", help="So many microVMs are on their way at once."),
]
DataLossOption = Annotated[
    bool | None,
    typer.Option(
        "--allow-data-loss/--keep-data",
        help="Also move microVMs with local volumes whose recovery.allow_data_loss is true, without their data.",
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command()(drain)
    app.command()(maintenance)
    app.command()(rejoin)


def drain(
    ctx: typer.Context,
    name: NameArgument,
    max_parallel: ParallelOption = None,
    allow_data_loss: DataLossOption = None,
    wait: WaitOption = True,
    timeout_s: TimeoutOption = 600.0,
    yes: options.YesOption = False,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Move what may be moved off a host, one after the other; `flintctl host uncordon` ends it."""
    _empty(ctx, "drain", name, max_parallel, allow_data_loss, wait, timeout_s, yes, form)


def maintenance(
    ctx: typer.Context,
    name: NameArgument,
    max_parallel: ParallelOption = None,
    allow_data_loss: DataLossOption = None,
    wait: WaitOption = True,
    timeout_s: TimeoutOption = 600.0,
    yes: options.YesOption = False,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Drain a host and shut down what cannot be moved; `flintctl host uncordon` starts that again."""
    _empty(ctx, "maintenance", name, max_parallel, allow_data_loss, wait, timeout_s, yes, form)


def rejoin(
    ctx: typer.Context,
    name: NameArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and wait for nothing.")] = False,
    timeout_s: TimeoutOption = 60.0,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Show what a host does with each microVM when it is back, and wait until it is.

    A host rejoins by itself once its agent dials in. Of a host that is not connected, the plan is a forecast from what
    was last known of it.
    """
    client = options.client(ctx)
    made = client.get(f"{_path(name)}/plan").body
    if not dry_run:
        _await_ready(client, name, timeout_s)
        made = client.get(f"{_path(name)}/plan").body
    if output.machine_readable(form):
        output.dump(made, form)
        return
    _print_plan(made)


# -- emptying ----------------------------------------------------------------------------------------------------------


def _empty(
    ctx: typer.Context,
    mode: str,
    name: str,
    max_parallel: int | None,
    allow_data_loss: bool | None,
    wait: bool,
    timeout_s: float,
    yes: bool,
    form: OutputFormat,
) -> None:
    client, path = options.client(ctx), _path(name)
    client.get(path)  # a mistyped name is told before anything is asked
    if not yes and typer.get_text_stream("stdin").isatty():
        typer.echo(f"Host {name}: {_WORDS[mode]}.", err=True)
        resources.confirm(f"Empty host {name}?", yes=yes)
    params: dict[str, str | int] = {}
    if max_parallel is not None:
        params["max_parallel"] = max_parallel
    if allow_data_loss is not None:
        params["allow_data_loss"] = str(allow_data_loss).lower()
    client.request("POST", f"{path}/actions/{mode}", params=params)
    found = _await_emptied(client, name, mode, timeout_s) if wait else client.get(f"{path}/evacuation").body
    if output.machine_readable(form):
        output.dump(found, form)
    else:
        _print_evacuation(found, mode)
    if wait and not dig(found, "evacuation", "done_at"):
        raise _not_done(found, name, mode)


def _await_emptied(client: Client, name: str, mode: str, timeout_s: float) -> Json:
    """How far it is when it is done, cannot go on by itself, or the time is over. Tells what changes on stderr."""
    give_up, told = time.monotonic() + timeout_s, ""
    while True:
        found = client.get(f"{_path(name)}/evacuation").body
        evacuation = mapping(found, "evacuation")
        if evacuation.get("mode") != mode:
            raise CliError(f"host {name}: its {mode} was ended by somebody else", hint=f"flintctl host show {name}")
        if (now := _progress(found)) != told:
            told = now
            typer.echo(f"host {name}: {now}", err=True)
        stuck = mode == "drain" and not evacuation["waiting"] and not evacuation["under_way"] and evacuation["staying"]
        if evacuation["done_at"] or stuck or time.monotonic() > give_up:
            return found
        time.sleep(POLL_S)


def _progress(found: Json) -> str:
    evacuation = mapping(found, "evacuation")
    counts = [("moved", "moved"), ("under_way", "under way"), ("waiting", "waiting"), ("staying", "staying")]
    return ", ".join(f"{evacuation[key]} {word}" for key, word in counts)


def _print_evacuation(found: Json, mode: str) -> None:
    evacuation, name = mapping(found, "evacuation"), found["host"]
    done = evacuation.get("done_at")
    state = f"{_DONE[mode]} since {done}" if done else f"not {_DONE[mode]} yet"
    print(f"host {name}: {state}; {_progress(found)}")
    rows = [
        [f"{each['namespace']}/{each['name']}", text(each.get("stand")), text(each.get("host")), text(each["reason"])]
        for each in objects(found, "left")
    ]
    if rows:
        output.table(["MICROVM", "STATE", "HOST", "REASON"], rows, empty="")


def _not_done(found: Json, name: str, mode: str) -> CliError:
    left = [each for each in objects(found, "left") if each.get("host") == name]
    staying = sum(each.get("stand") == "staying" for each in left)
    if staying and staying == len(left):
        hint = f"`flintctl host maintenance {name}` shuts them down there; `flintctl host uncordon {name}` ends it"
        return CliError(f"host {name} is not drained: {staying} microVMs stay there", hint=hint)
    hint = f"it goes on; `flintctl host {mode} {name}` shows how far it is"
    return CliError(f"host {name} is not {_DONE[mode]} yet: {len(left)} microVMs are left there", hint=hint)


# -- rejoining ---------------------------------------------------------------------------------------------------------


def _await_ready(client: Client, name: str, timeout_s: float) -> None:
    give_up, told = time.monotonic() + timeout_s, ""
    while (phase := text(dig(client.get(_path(name)).body, "status", "phase"))) != "ready":
        if phase != told:
            told = phase
            typer.echo(f"host {name}: {phase}", err=True)
        if time.monotonic() > give_up:
            raise CliError(
                f"host {name} is {phase} after {timeout_s:g} s", hint="is its agent running? `flintctl host show` says"
            )
        time.sleep(POLL_S)


def _print_plan(made: Json) -> None:
    source = "as its agent sees it now" if made["source"] == "agent" else "a forecast, from what was last known of it"
    print(f"host {made['host']} ({made['phase']}), {source}:")
    rows = [
        [text(each.get("verb")), _name_of(each), text(each.get("epoch")), text(each.get("driver")), each["reason"]]
        for each in objects(made, "items")
    ]
    output.table(
        ["DOES", "MICROVM", "EPOCH", "DRIVER", "REASON"], rows, empty="Nothing is there, and nothing is to be."
    )


def _name_of(item: Json) -> str:
    if item.get("name"):
        return "/".join(filter(None, (text(item.get("namespace")), text(item["name"]))))
    return text(item.get("native_id") or item.get("uid"))


def _path(name: str) -> str:
    return f"/hosts/{options.segment(name, 'name')}"
