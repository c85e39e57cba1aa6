"""The nodes' side of the agents' sessions: assignments out, observations in, questions wherever the agent dialled."""

from controlplane.api.gateway.server import Gateway

__all__ = ["Gateway"]
