"""flintctl failover: what is restarted elsewhere after hosts were lost, and the override of the breaker."""

from __future__ import annotations

from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.commands.resources import confirm
from controlplane.cli.errors import CliError
from controlplane.cli.options import YesOption
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, mapping, objects, text

_OVERRIDING = """\
What the breaker holds is restarted elsewhere at once, host by host as each is fenced, and so is what is lost until the
override ends. Nothing runs twice for it: only fenced hosts are given up. But if the hosts are well and merely cut off,
all of that stops there and starts again on the hosts that are left, as far as they have room."""

app = options.new_app(
    """Failover: what was lost, what is restarted elsewhere, what holds the rest.

\\b
Examples:
  flintctl failover status                                          the breaker, and what is held by what
  flintctl failover override --for 30m --reason "rack 3 burnt down"  go on although the breaker is open
  flintctl failover override --cancel                               take that back
"""
)


@app.command()
def status(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show the breaker, its override, what is restarted next, and what is held by what and until when."""
    _show(options.client(ctx).get("/failover").body, form)


@app.command()
def override(
    ctx: typer.Context,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long: 90s, 30m or 2h; at most 24h.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for those who ask.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take the override back.")] = False,
    yes: YesOption = False,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Let failover go on for a time although the breaker is open; with --cancel, no longer."""
    if cancel:
        if duration is not None or reason is not None:
            raise typer.BadParameter("goes with neither --for nor --reason", param_hint="--cancel")
        _show(options.client(ctx).request("DELETE", "/failover/override").body, form)
        return
    if duration is None or reason is None:
        raise typer.BadParameter("are both required, or --cancel", param_hint="--for and --reason")
    body = {"for_s": options.seconds(duration, "--for"), "reason": reason}
    client = options.client(ctx)
    typer.echo(_OVERRIDING, err=True)
    if not yes and not typer.get_text_stream("stdin").isatty():
        raise CliError("nobody is there to be asked", hint="say --yes if the breaker is to be overridden")
    confirm(f"Override the breaker for {duration}?", yes=yes)
    _show(client.request("PUT", "/failover/override", body=body).body, form)


def breaker_line(breaker_open: bool, lost: object, of: object, override: Json) -> str:
    """The breaker in a line: for `failover status` and `cluster status`."""
    counts = f"{text(lost) or '0'} of {text(of) or '0'} hosts lost"
    state = f"STOPPED: {counts}" if breaker_open else f"ready; {counts}"
    return state + (f"; {override_line(override)}" if override else "")


def override_line(override: Json) -> str:
    who, until = text(override.get("actor")), text(override.get("until"))
    return f"overridden by {who} until {until}: {text(override.get('reason'))}"


def _show(found: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(found, form)
        return
    breaker, overridden = mapping(found, "breaker"), mapping(found, "override")
    stops = bool(breaker.get("stops"))
    if stops:
        output.alarm(f"FAILOVER IS STOPPED: {text(breaker.get('message'))}")
    window = f"more than {text(breaker.get('max_unhealthy'))} of the hosts within {text(breaker.get('window_s'))} s"
    output.pairs(
        [
            ("Failover", breaker_line(stops, breaker.get("lost"), breaker.get("of"), {})),
            ("Breaker", f"{'open' if breaker.get('open') else 'closed'}; opens when {window} are lost"),
            ("Override", override_line(overridden) if overridden else "none"),
            ("Held", text(found.get("held_in_all")) or "0"),
        ]
    )
    if restarted := objects(found, "next"):
        print("\nRestarted elsewhere next, in this order")
        output.table(["MICROVM", "HOST", "POLICY", "PRIORITY"], [_row(each) for each in restarted], empty="")
    if held := objects(found, "held"):
        print("\nHeld, in the order in which they come")
        rows = [[*_row(each), text(each.get("held"))] for each in held]
        output.table(["MICROVM", "HOST", "POLICY", "PRIORITY", "REASON"], rows, empty="")


def _row(vm: Json) -> list[str]:
    name = f"{text(vm.get('namespace'))}/{text(vm.get('name'))}"
    return [name, text(vm.get("host")), text(vm.get("policy")), text(vm.get("priority"))]
