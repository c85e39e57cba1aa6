"""The state machine: the only place where state changes. Pure, total and deterministic; no clock, socket or random."""
