"""MicroVMs that are only rows in a file: for scale, and for machines without a hypervisor. It always says so.

`store` keeps the rows, `driver` gives them the behaviour of `ports.HostDriver`, and `python -m
controlplane.drivers.simulated` changes them behind the agent's back.
"""

from controlplane.drivers.simulated.driver import SimulatedDriver

__all__ = ["SimulatedDriver"]
