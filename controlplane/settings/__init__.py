"""Settings of the two processes, read once from a YAML file and frozen.

A setting is found in this order: the environment, the file, the default. Any field is overridden by a variable that
spells its path, `FLINTLOCK_NODE__RAFT__LISTEN=0.0.0.0:7101` or `FLINTLOCK_AGENT__HOST=h1`, whose value is read as
YAML. Relative paths in the file are relative to the file. Unknown fields are refused, and an error names the file
(or variable), the field, and what to do. Nothing below `bootstrap` reads settings for itself: it gets what it needs
handed in.
"""

from controlplane.settings.agent import (
    AgentFileSettings,
    DriverSettings,
    FlintlockdDriverSettings,
    QemuDriverSettings,
    SimulatedDriverSettings,
)
from controlplane.settings.loading import load_agent, load_node, read_node
from controlplane.settings.node import GCSettings, LeaseSettings, NodeSettings, dialled_at
from controlplane.settings.values import SettingsError, split_address

__all__ = [
    "AgentFileSettings",
    "DriverSettings",
    "FlintlockdDriverSettings",
    "GCSettings",
    "LeaseSettings",
    "NodeSettings",
    "QemuDriverSettings",
    "SettingsError",
    "SimulatedDriverSettings",
    "dialled_at",
    "load_agent",
    "load_node",
    "read_node",
    "split_address",
]
