"""What is said of the cluster's machine version."""

from __future__ import annotations

from controlplane.model.types import record


@record
class RaiseMachineVersion:
    """Every member knows `version`: what needs it may be proposed from here on. A build that does not know it stops."""

    version: int
