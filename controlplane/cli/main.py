"""flintctl's command tree and its outermost layer: every error becomes a message and an exit code here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import errors
from controlplane.cli.commands import (
    api_token,
    apply,
    audit,
    auth,
    authority,
    cluster,
    drift,
    events,
    failover,
    gc,
    group,
    host,
    image,
    joining,
    login,
    microvm,
    process,
    provider,
    raft,
    resources,
    secrets,
    snapshot,
)
from controlplane.cli.context import Connection, Flags
from controlplane.cli.dev import commands as dev
from controlplane.cli.errors import CliError

HELP = """Operate a Flintlock control plane: hosts, microVMs and what differs from your intent.

\b
First steps:
  flintctl dev up                        a cluster on this machine: 3 nodes, 3 hosts
  flintctl apply -f fleet.yaml --wait    declare resources
  flintctl vm list -A                    what runs where
  flintctl drift                         what differs from the intent

\b
The cluster comes from the flags, else the environment (FLINTLOCK_ENDPOINTS, FLINTLOCK_TOKEN, FLINTLOCK_CA_FILE,
FLINTLOCK_NAMESPACE), else ~/.config/flintlock/config.yaml, which `flintctl dev up` writes.

\b
Exit codes: 0 done; 1 error; 2 differences found (drift --exit-code), a degraded log (raft status) or a wrong
command line; 130 interrupted.
"""

app = typer.Typer(
    name="flintctl", help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.add_typer(cluster.app, name="cluster")
app.add_typer(raft.app, name="raft")
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(failover.app, name="failover")
app.add_typer(host.app, name="host")
app.add_typer(microvm.app, name="microvm")
app.add_typer(microvm.app, name="vm")
app.add_typer(group.app, name="group")
app.add_typer(resources.namespaces, name="namespace")
app.add_typer(resources.policies, name="policy")
app.add_typer(resources.failover_policies, name="failoverpolicy")
app.add_typer(resources.gc_policies, name="gcpolicy")
app.add_typer(resources.roles, name="role")
app.add_typer(resources.role_bindings, name="rolebinding")
app.add_typer(auth.app, name="auth")
app.add_typer(api_token.app, name="api-token")
app.add_typer(audit.app, name="audit")
app.add_typer(secrets.app, name="secrets")
app.command("login")(login.login)
app.command("logout")(login.logout)
app.add_typer(resources.operations, name="operation")
app.add_typer(drift.app, name="drift")
app.command("watch")(cluster.watch)
app.command("events")(events.events)
app.command("apply")(apply.apply)
app.command("delete")(apply.delete)
app.add_typer(gc.app, name="gc")
app.command("hold")(gc.hold)
app.command("release")(gc.release)
app.add_typer(image.app, name="image")
app.command("init")(joining.init)
app.command("join")(joining.join)
app.add_typer(joining.token_app, name="token")
app.add_typer(authority.app, name="ca")
app.add_typer(provider.app, name="provider")
app.add_typer(process.node, name="node")
app.add_typer(process.agent, name="agent")
app.add_typer(dev.app, name="dev")


@app.callback()
def root(
    ctx: typer.Context,
    endpoint: Annotated[
        list[str] | None,
        typer.Option("--endpoint", metavar="https://HOST:PORT", help="A node of the cluster; may be repeated."),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", metavar="TOKEN", help="Better: FLINTLOCK_TOKEN, which `ps` does not show.")
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="PEM of the authority that issued the API's certificate."),
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="Context of the configuration file to use.")
    ] = None,
) -> None:
    ctx.obj = Connection(Flags(endpoints=tuple(endpoint or ()), token=token, ca_file=ca_file, context=context))


@app.command()
def version() -> None:
    """Print the version."""
    print(f"flintctl {metadata.version('flintlock-controlplane')} (Python {sys.version.split()[0]})")


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell to complete in.")],
) -> None:
    """Print a script that makes TAB complete flintctl's commands and options.

    \b
    Example:
      source <(flintctl completion bash)
    """
    if shell not in ("bash", "zsh", "fish"):
        raise typer.BadParameter(f"{shell!r} is not one of bash, zsh, fish", param_hint="SHELL")
    os.environ["_FLINTCTL_COMPLETE"] = f"source_{shell}"
    app(args=[], prog_name="flintctl")


def run(arguments: Sequence[str]) -> int:
    """Run one command; gives its exit code and never raises but for a programming error with FLINTLOCK_DEBUG set."""
    try:
        code = app(args=list(arguments), prog_name="flintctl", standalone_mode=False)
        sys.stdout.flush()
    except CliError as error:
        errors.show(error)
        return error.exit_code
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        if callable(show):
            show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("FLINTLOCK_DEBUG"):
            raise
        name = type(error).__name__
        errors.show(
            CliError(f"internal error: {name}: {error}", hint="FLINTLOCK_DEBUG=1 shows where; please report it")
        )
        return errors.ERROR
    return code if isinstance(code, int) else 0


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
