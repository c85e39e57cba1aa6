"""A front's view of the cluster: a copy of the state that follows the log, and the way to propose a change."""

from controlplane.replica.replica import Replica

__all__ = ["Replica"]
