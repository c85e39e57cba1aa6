"""The process on each host: a session to any node, a journal, a pure plan, and a runner that acts through drivers."""

from controlplane.agent.agent import Agent
from controlplane.agent.settings import AgentSettings

__all__ = ["Agent", "AgentSettings"]
