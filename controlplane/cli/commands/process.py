"""flintctl node run and agent run: the two processes, started from their settings files.

They run in the foreground until SIGTERM or Ctrl-C; a service manager (or `flintctl dev`) keeps them running.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controlplane import settings
from controlplane.cli import options
from controlplane.cli.errors import CliError
from controlplane.cli.joining import certifying
from controlplane.settings import SettingsError

ConfigOption = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="Settings of the process (YAML).")]
CheckOption = Annotated[bool, typer.Option("--check", help="Only read and check the settings.")]

node = options.new_app("A control-plane node: run it in the foreground.")
agent = options.new_app("A host's agent: run it in the foreground.")


@node.callback()
def _node() -> None:
    """A control-plane node."""


@agent.callback()
def _agent() -> None:
    """A host's agent."""


@node.command("run")
def run_node(config: ConfigOption, check: CheckOption = False) -> None:
    """Run a node until SIGTERM. Any setting can be overridden: FLINTLOCK_NODE__HTTP__LISTEN=0.0.0.0:7301."""
    try:
        loaded = settings.load_node(config)
    except SettingsError as error:
        raise _refused(error) from None
    if check:
        print(f"{config}: node {loaded.node} of cluster {loaded.cluster_id}: the settings are valid")
        return
    from controlplane import bootstrap  # imports the whole product: only a node needs it

    raise typer.Exit(bootstrap.run_node(loaded, config))


@node.command("certify")
def certify_node(config: ConfigOption) -> None:
    """Give the node a new certificate from its own files, when the old one expired while nothing ran.

    \b
    It needs no cluster, only the node's key ring and the authority's file.
    """
    print(certifying.certify_node(config))


@agent.command("run")
def run_agent(config: ConfigOption, check: CheckOption = False) -> None:
    """Run an agent until SIGTERM; its microVMs go on running. Override with FLINTLOCK_AGENT__HOST=h1 and the like."""
    try:
        loaded = settings.load_agent(config)
    except SettingsError as error:
        raise _refused(error) from None
    if check:
        print(f"{config}: agent of host {loaded.host}: the settings are valid")
        return
    from controlplane import bootstrap  # imports the whole product: only an agent needs it

    raise typer.Exit(bootstrap.run_agent(loaded))


def _refused(error: SettingsError) -> CliError:
    return CliError(str(error), hint="docs/guides/settings.md lists every setting")
