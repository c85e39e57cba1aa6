"""flintctl login and logout: to be known by an account elsewhere."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from controlplane.cli import logins, options
from controlplane.cli.errors import CliError
from controlplane.cli.oidc_login import OidcClient, log_in


def login(
    ctx: typer.Context,
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="Where to log in; else where it was done last.")
    ] = None,
    client_id: Annotated[
        str | None, typer.Option("--client-id", metavar="ID", help="As which the issuer knows flintctl.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Besides `openid`: what to ask for; may be repeated.")
    ] = None,
    issuer_ca_file: Annotated[
        Path | None, typer.Option("--issuer-ca-file", metavar="FILE", help="PEM of the issuer's authority.")
    ] = None,
    client_secret_file: Annotated[
        Path | None,
        typer.Option("--client-secret-file", metavar="FILE", help="For an issuer that wants a secret of every client."),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", help="On loopback, where the issuer wants a certain one.", min=0, max=65535)
    ] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open one, or only show the URL.")] = True,
) -> None:
    """Log in with a browser at an OpenID Connect issuer that the cluster trusts; for the current context."""
    path = options.connection(ctx).login_path()
    client = _client(path, issuer, client_id, scope, issuer_ca_file, client_secret_file)

    def show(url: str) -> None:
        typer.echo(f"Log in at\n\n  {url}\n", err=True)
        if browser:
            # It may be one in this terminal, which comes back only when the login is done.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    tokens = log_in(client, show, port=port)
    logins.save(path, logins.Login(client=client, tokens=tokens))
    found = options.client(ctx).get("/auth/whoami").body
    typer.echo(f"Logged in as {found.get('name')}.")


def logout(ctx: typer.Context) -> None:
    """Forget the login of the current context."""
    gone = logins.forget(options.connection(ctx).login_path())
    typer.echo("Logged out." if gone else "Nobody was logged in.")


def _client(
    path: Path,
    issuer: str | None,
    client_id: str | None,
    scopes: list[str] | None,
    ca_file: Path | None,
    secret_file: Path | None,
) -> OidcClient:
    """What the options say; where they say nothing, the last login. Raises CliError."""
    if issuer is None and client_id is None:
        last = logins.read(path)
        if last is None:
            raise CliError("where to log in is not known yet", hint="give --issuer and --client-id, once")
        return last.client
    if issuer is None or client_id is None:
        raise CliError("--issuer and --client-id go together")
    asked: dict[str, object] = {"issuer": issuer, "client_id": client_id, "ca_file": ca_file}
    if secret_file is not None:
        try:
            asked["client_secret"] = secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise CliError(f"--client-secret-file: {secret_file} cannot be read") from None
    if scopes is not None:
        asked["scopes"] = ["openid", *scopes]
    try:
        return OidcClient.model_validate(asked)
    except ValidationError as error:
        raise CliError(f"--issuer: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
