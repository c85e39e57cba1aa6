"""With this folder on PYTHONPATH, a node is of the next build: version 2, since which there are failover policies."""

from __future__ import annotations

from controlplane.model.commands import DeclareFailoverPolicy, versions

versions.MACHINE_VERSION = 2
versions.SINCE[DeclareFailoverPolicy] = 2
