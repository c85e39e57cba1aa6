"""The composition root: the only place that knows every part, and which part is behind which port.

A node is a parent (`run_node`) that keeps two children alive: the raft process (`raft`: the log, and nothing else, so
that its ticks are never late) and the front process (`front`: HTTP, agent sessions, reconcilers, over a replica that
follows the log through a private unix socket). A host runs one agent process (`run_agent`). Each process imports its
own parts only: what a module here needs, its process needs.
"""

from __future__ import annotations

from pathlib import Path

from controlplane.identity.grpc_tls import require_tls13
from controlplane.settings import AgentFileSettings, NodeSettings

# gRPC looks when it is imported, and so would not see what is said later.
require_tls13()


def run_node(settings: NodeSettings, config: Path) -> int:
    """Run a node until SIGTERM or SIGINT; `config` is the file that `settings` came from. Gives the exit code."""
    from controlplane.bootstrap import node

    return node.run(settings, config)


def run_agent(settings: AgentFileSettings) -> int:
    """Run a host's agent until SIGTERM or SIGINT; microVMs outlive it. Gives the exit code."""
    from controlplane.bootstrap import agent

    return agent.run(settings)
