"""flintctl secrets: the data keys that secrets are sealed with, and putting another one in their place."""

from __future__ import annotations

import time

import typer

from controlplane.cli import options, output
from controlplane.cli.client import Client
from controlplane.cli.errors import CliError
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, objects, text

POLL_S = 0.5

app = options.new_app(
    """Secrets: what microVMs were given as sensitive metadata is sealed in the state, and never shown.

\\b
Examples:
  flintctl secrets status                the data keys, and how many microVMs have secrets under each
  flintctl secrets rotate --wait-s 60    another data key; everything is sealed with it, and the old one goes
"""
)


@app.command()
def status(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show the data keys. More than one: a rotation is going on."""
    _show(options.client(ctx).get("/secrets").body, form)


@app.command()
def rotate(
    ctx: typer.Context,
    wait_s: float = typer.Option(0.0, "--wait-s", min=0, metavar="SECONDS", help="Wait so long for its end."),
    form: Output = OutputFormat.TABLE,
) -> None:
    """Make another data key, sealed with the first key of the nodes' key ring.

    The node that leads seals every secret anew, step by step, and drops the old data key when nothing needs it. Guests
    notice nothing. If the leader changes, the next one goes on.
    """
    client = options.client(ctx)
    found = client.request("POST", "/secrets/actions/rotate").body
    _show(_ended(client, found, wait_s), form)


def _ended(client: Client, found: Json, wait_s: float) -> Json:
    """The status once one data key is left; `found` as it is when nobody waits. Raises CliError."""
    if not wait_s:
        return found
    deadline = time.monotonic() + wait_s
    while len(objects(found, "data_keys")) > 1:
        if time.monotonic() >= deadline:
            raise CliError(f"the rotation is not done after {wait_s:g} s", hint="it goes on: flintctl secrets status")
        time.sleep(POLL_S)
        found = client.get("/secrets").body
    return found


def _show(found: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(found, form)
        return
    rows = [
        [
            text(each.get("id")),
            text(each.get("created_at")),
            text(each.get("created_by")),
            "seals" if each.get("seals") else "going",
            text(each.get("microvms")),
            text(each.get("sealed_with")),
        ]
        for each in objects(found, "data_keys")
    ]
    headers = ["DATA KEY", "CREATED", "BY", "STATUS", "MICROVMS", "SEALED WITH"]
    output.table(headers, rows, empty="No secrets yet.")
