"""flintctl ca: who signs the members' certificates, taking them back, and replacing the authority itself."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.client import Client
from controlplane.cli.errors import CliError
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, mapping, objects, text

_LOOK_S = 1.0
_NAMED = 10
"""Members that are listed while they are waited for."""

app = options.new_app(
    """The cluster's certificate authority.

\b
Examples:
  flintctl ca show                                         who signs, and every certificate that is out
  flintctl ca revoke host h7 --reason "the disk was sold"  its session is cut, and it is not renewed
  flintctl ca revoke host h7 --serial 1f3a... --reason ...  one certificate
  flintctl ca rotate --wait                                another authority, without a restart
  flintctl ca status                                       who still depends on the one before
  flintctl ca bundle > ca.crt                              what to trust, for who talks to the API
"""
)


@app.command("show")
def show(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show who signs, and every certificate that was issued and has not expired."""
    _show(options.client(ctx).get("/authority").body, form)


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="host|node")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; shown to who asks.")],
    serial: Annotated[str | None, typer.Option("--serial", metavar="HEX", help="This one alone.")] = None,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Take back the certificates of a member: its sessions are cut at once, and nothing is renewed."""
    if kind not in ("host", "node"):
        raise typer.BadParameter(f"{kind!r} is not one of host, node", param_hint="host|node")
    body = {"kind": kind, "name": name, "reason": reason, **({"serial": serial.lower()} if serial else {})}
    _show(options.client(ctx).request("POST", "/authority/actions/revoke", body=body).body, form)


@app.command("rotate")
def rotate(
    ctx: typer.Context,
    abort: Annotated[bool, typer.Option("--abort", help="Let the one before sign again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until every member has renewed; then retire the other.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="With --wait.")] = 3600.0,
) -> None:
    """Let another authority sign: both are trusted until one is retired, and every member renews meanwhile.

    It can be repeated: a rotation that is under way goes on. Nothing is restarted and no session ends.
    """
    client = options.client(ctx)
    step = "abort" if abort else "rotate"
    found = client.request("POST", f"/authority/actions/{step}").body
    if wait:
        _wait(client, timeout)
        found = _retire(client, force=False)
    _show_status(found)


@app.command("status")
def status(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """Show how far a rotation is: who has not shown a certificate of the authority that stays."""
    found = options.client(ctx).get("/authority").body
    if output.machine_readable(form):
        output.dump({"rotation": found.get("rotation")}, form)
        return
    _show_status(found)


@app.command("retire")
def retire(
    ctx: typer.Context,
    force: Annotated[
        bool, typer.Option("--force", help="Who still depends on it loses its certificates, and joins anew.")
    ] = False,
) -> None:
    """End a rotation: the authority that does not sign is trusted no more. Refused while members depend on it."""
    _show_status(_retire(options.client(ctx), force=force))


@app.command("bundle")
def bundle(ctx: typer.Context) -> None:
    """Print every authority that is trusted, as PEM: what --ca-file and FLINTLOCK_CA_FILE take."""
    found = options.client(ctx).get("/authority").body
    trusted = [each for each in objects(found, "authorities") if each.get("retired_at") is None]
    if not trusted:
        raise CliError("the cluster has no authority of its own", hint="its certificates come from elsewhere")
    print("".join(text(each.get("certificate")) for each in trusted), end="")


def _retire(client: Client, *, force: bool) -> Json:
    return client.request("POST", "/authority/actions/retire", body={"force": force}, repeatable=False).body


def _wait(client: Client, timeout_s: float) -> None:
    """Until no member depends on the authority that is to be retired. Raises CliError."""
    ends_s = time.monotonic() + timeout_s
    told = -1
    while left := _waiting(client.get("/authority").body):
        if time.monotonic() > ends_s:
            raise CliError(
                f"after {timeout_s:g} s these have not renewed: {_named(left)}",
                hint="`flintctl ca status` tells who is left; `flintctl ca retire --force` does without them",
            )
        if len(left) != told:
            typer.echo(f"waiting for {_named(left)}", err=True)
            told = len(left)
        time.sleep(_LOOK_S)


def _waiting(found: Json) -> list[str]:
    if found.get("rotation") is None:
        raise CliError("the rotation was ended meanwhile", hint="`flintctl ca show` tells who signs")
    return [f"{each.get('kind')} {each.get('name')}" for each in objects(mapping(found, "rotation"), "waiting")]


def _named(members: list[str]) -> str:
    more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
    return ", ".join(members[:_NAMED]) + more


def _show_status(found: Json) -> None:
    signs = next((text(each.get("fingerprint")) for each in objects(found, "authorities") if each.get("signs")), None)
    if signs is None:
        print("No authority: certificates come from elsewhere.")
        return
    print(f"signs     {signs}")
    if found.get("rotation") is None:
        print("No rotation is under way.")
        return
    rotation = mapping(found, "rotation")
    aborted = ", an aborted rotation" if rotation.get("aborted") else ""
    print(f"leaves    {text(rotation.get('leaves'))} (trusted until it is retired{aborted})")
    left = _waiting(found)
    print(f"waits for {', '.join(left) if left else 'nobody: `flintctl ca retire` ends the rotation'}")


def _show(found: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(found, form)
        return
    rows = [
        [text(each.get("fingerprint")), text(each.get("created_at")), _standing(each)]
        for each in objects(found, "authorities")
    ]
    output.table(["AUTHORITY", "CREATED", "STATUS"], rows, empty="No authority: certificates come from elsewhere.")
    print()
    rows = [
        [
            f"{each.get('kind')} {each.get('name')}",
            text(each.get("serial")),
            text(each.get("expires_at")),
            f"revoked by {each.get('revoked_by')}: {each.get('reason')}" if each.get("revoked_at") else "valid",
        ]
        for each in objects(found, "certificates")
    ]
    output.table(["HOLDER", "SERIAL", "EXPIRES", "STATUS"], rows, empty="No certificates are out.")


def _standing(authority: Json) -> str:
    if authority.get("signs"):
        return "signs"
    return "retired" if authority.get("retired_at") else "trusted"
