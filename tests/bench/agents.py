"""Many hosts in one process: real agents, each with its own settings, certificate and simulated driver, in one loop.

    python -m tests.bench.agents CONFIG...

Ends on SIGTERM, or when whoever started it closes standard input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controlplane import logs
from controlplane.bootstrap.agent import make_agent
from controlplane.settings import AgentFileSettings, load_agent
from controlplane.supervisor import parent_is_gone


async def run_all(hosts: list[AgentFileSettings]) -> None:
    gone = asyncio.create_task(parent_is_gone())
    agents = [asyncio.create_task(make_agent(settings).run()) for settings in hosts]
    done, _ = await asyncio.wait([gone, *agents], return_when=asyncio.FIRST_COMPLETED)
    for agent in agents:
        agent.cancel()
    await asyncio.gather(*agents, return_exceptions=True)
    for ended in done - {gone}:
        ended.result()


def main() -> None:
    logs.configure("warning", process="agents")
    asyncio.run(run_all([load_agent(Path(path)) for path in sys.argv[1:]]))


if __name__ == "__main__":
    main()
