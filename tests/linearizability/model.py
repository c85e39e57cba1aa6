"""The register that a history is compared with: what each operation needs of the value, and what it leaves.

The value alone is the state; `ABSENT` is a register that does not exist.
"""

from __future__ import annotations

from linearizability.history import ABSENT, Kind, Operation, Outcome


def allowed(value: int, operation: Operation) -> bool:
    """Whether `operation` can have had its outcome on a register that holds `value`.

    An unknown outcome counts as success: without one nothing happened, and it need not be placed at all.
    """
    expected = operation.expected
    match operation.kind:
        case Kind.READ:
            return value == operation.value
        case Kind.WRITE:
            holds = True
        case Kind.CREATE:
            holds = value == ABSENT
        case Kind.CAS:
            holds = value == expected
        case Kind.DELETE:
            holds = value != ABSENT if expected is None else value == expected
    return holds is not (operation.outcome is Outcome.REFUSED)


def after(value: int, operation: Operation) -> int:
    """The value once `operation`, which is allowed on `value`, took effect."""
    if not operation.has_effect:
        return value
    return ABSENT if operation.kind is Kind.DELETE else operation.value
