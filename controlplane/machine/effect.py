"""What came of one command: the answer to its proposer, and all that the audit chain says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.machine.draft import Digests, Place
from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Command, Envelope
from controlplane.model.types import record


@record
class Effect:
    before: State
    after: State
    envelope: Envelope
    command: Command
    """What is in the envelope: nobody has to open it again."""
    parts: Sequence[Command]
    """Of a batch, what is in its envelopes."""
    outcome: Outcome
    events: Sequence[Event] = ()
    digests: Mapping[Place, Digests] = {}
    """Of every record that changed."""
