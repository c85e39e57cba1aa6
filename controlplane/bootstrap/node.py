"""A node's parent process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controlplane import logs
from controlplane.settings import NodeSettings
from controlplane.supervisor import Supervisor

CHILDREN = ("raft", "front")


def run(settings: NodeSettings, config: Path) -> int:
    """Until SIGTERM or SIGINT, or until a child refuses to run. Gives the exit code."""
    logs.configure(settings.log_level, process="node", node=settings.node)
    commands = {name: [sys.executable, "-m", f"controlplane.bootstrap.{name}", str(config)] for name in CHILDREN}
    return asyncio.run(Supervisor(commands).run())
