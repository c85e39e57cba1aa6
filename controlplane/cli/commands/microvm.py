"""flintctl microvm (vm): look at microVMs and act on them."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.commands import resources
from controlplane.cli.errors import CliError
from controlplane.cli.options import NamespaceOption, ReasonOption, VmArgument, YesOption, microvm_path
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, dig, mapping, objects, text

CONSOLE_CHUNK = 65_536
_POLL_S = 0.3
_SETTLE_WAIT_S = 120.0

app = options.new_app(
    """MicroVMs: list, show, why, console, and the verbs that change their power.

\b
Examples:
  flintctl vm list -A                    every microVM, where it runs and whether it drifted
  flintctl vm why demo/web-a             why it runs where it runs, with the losing bids
  flintctl vm console web-a -n demo -f   follow its serial console
  flintctl vm repair demo/web-a          make reality match the intent again
"""
)
app.command("list")(resources.list_microvms)


@app.command()
def show(
    ctx: typer.Context, name: VmArgument, namespace: NamespaceOption = None, form: Output = OutputFormat.TABLE
) -> None:
    """Show one microVM: intent, observation, conditions and drift."""
    resources.print_one(options.client(ctx).get(microvm_path(ctx, name, namespace)).body, form)


@app.command()
def delete(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, or NAMESPACE/NAME.")],
    namespace: NamespaceOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until the host confirms that nothing is left.")] = True,
    reason: ReasonOption = None,
    yes: YesOption = False,
) -> None:
    """Delete microVMs, with their volumes."""
    targets = [(name, microvm_path(ctx, name, namespace)) for name in names]
    resources.confirm(f"Delete microVM {', '.join(names)} with its volumes?", yes=yes)
    resources.report_deletions(options.client(ctx), resources.MICROVM, targets, wait=wait, reason=reason)


@app.command()
def why(
    ctx: typer.Context, name: VmArgument, namespace: NamespaceOption = None, form: Output = OutputFormat.TABLE
) -> None:
    """Explain the placement: the best bids, and why hosts refused."""
    answer = options.client(ctx).get(f"{microvm_path(ctx, name, namespace)}/why").body
    if output.machine_readable(form):
        output.dump(answer, form)
        return
    decision, unplaced = mapping(answer, "decision"), mapping(answer, "unplaced")
    if decision:
        print(f"{name} runs on {decision['host']} (epoch {decision['epoch']}, decided {decision['at']}).")
    if unplaced:
        print(f"{name} has no host since {unplaced.get('since')}: {unplaced['reason']}: {unplaced['message']}")
    lost = mapping(answer, "resurrection")
    if not decision and not unplaced:
        print(f"{name} waits for its {'next' if lost else 'first'} placement.")
    if lost:
        print(
            f"Its copy of epoch {lost['epoch']} was given up on host {lost['host']} at {lost['at']}: {lost['reason']}."
        )
    if answer.get("waits"):
        print(f"It does not run yet: {answer['waits']}.")
    if answer.get("held"):
        print(f"Its host is lost, and it is not restarted elsewhere: {answer['held']}.")
    bids = objects(unplaced or decision, "bids")
    rows = [[text(bid.get("host")), _score(bid), _parts(bid), text(bid.get("refused"))] for bid in bids]
    if rows:
        print()
        output.table(["HOST", "SCORE", "PARTS", "REFUSED"], rows, empty="")


@app.command()
def console(
    ctx: typer.Context,
    name: VmArgument,
    namespace: NamespaceOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what comes, until Ctrl-C.")] = False,
    offset: Annotated[
        int, typer.Option(help="First byte to print; negative counts from the end, as in --offset=-4096.")
    ] = 0,
) -> None:
    """Print a microVM's serial console."""
    client, path = options.client(ctx), f"{microvm_path(ctx, name, namespace)}/console"
    try:
        while True:
            answer = client.get(path, {"offset": offset, "limit": CONSOLE_CHUNK})
            sys.stdout.write(answer.text)
            sys.stdout.flush()
            following = int(answer.headers.get("Flintlock-Console-Offset", offset))
            if following == offset or not answer.text:
                if not follow:
                    return
                time.sleep(_POLL_S)
            offset = following
    except KeyboardInterrupt:
        if not follow:
            raise


def _verb(action: str, help_text: str) -> None:
    @app.command(action, help=help_text)
    def act(
        ctx: typer.Context,
        name: VmArgument,
        namespace: NamespaceOption = None,
        wait: Annotated[bool, typer.Option(help="Wait until the host confirms it.")] = True,
    ) -> None:
        client, path = options.client(ctx), microvm_path(ctx, name, namespace)
        # A restart that is repeated is a second restart; the other verbs ask for a state.
        answer = client.request("POST", f"{path}/actions/{action}", repeatable=action != "restart")
        operation = dig(answer.body, "operation", "id")
        if not wait:
            print(f"microVM {name}: {action} accepted" + (f" (operation {operation})" if operation else ""))
            return
        give_up = time.monotonic() + _SETTLE_WAIT_S
        while time.monotonic() < give_up:
            params = {"wait_for": "settled", "wait_s": 20}
            waited = client.get(path, params, read_timeout_s=40)
            outcome = waited.headers.get("Flintlock-Wait", "done")
            if outcome == "done":
                print(f"microVM {name}: {dig(waited.body, 'status', 'power_state') or action}")
                return
            if outcome == "failed":
                raise CliError(
                    f"microVM {name} failed: {failure_message(waited.body)}", hint=f"flintctl vm show {name}"
                )
        raise CliError(
            f"microVM {name}: {action} is not confirmed after {_SETTLE_WAIT_S:.0f} s", hint=f"flintctl vm show {name}"
        )


for _action, _help in (
    ("start", "Start a microVM that is stopped (or resume a paused one)."),
    ("stop", "Stop a microVM: the guest is asked first. Its volumes are kept."),
    ("pause", "Freeze a microVM where it stands."),
    ("resume", "Let a paused microVM go on."),
    ("restart", "Stop and start a microVM, with its volumes."),
    ("repair", "Ask the host to make reality match the intent again."),
):
    _verb(_action, _help)


def failure_message(microvm: Json) -> str:
    """What the conditions say is wrong."""
    for condition in objects(microvm, "status", "conditions"):
        if condition.get("status") == "false" and condition.get("message"):
            return f"{condition.get('reason')}: {condition['message']}"
    return text(dig(microvm, "status", "phase")) or "no reason was given"


def _score(bid: Json) -> str:
    score = bid.get("score")
    return "" if score is None else f"{float(score):.3f}"


def _parts(bid: Json) -> str:
    return " ".join(f"{key}={float(value):.2f}" for key, value in sorted(mapping(bid, "parts").items()))
