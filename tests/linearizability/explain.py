"""A contradiction as a person reads it: what was answered, what was possible, and the operations around it.

The text is for a terminal, the page for a browser: a lane for each client, a bar from call to return, the culprit in
red, and bars without an end for operations whose outcome nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from linearizability.checker import Violation
from linearizability.history import ABSENT, Kind, Operation, Outcome, show
from linearizability.order import Disorder

SHOWN = 30
_LANE_PX = 26
_WIDTH_PX = 1400
_LEFT_PX = 90
_COLOURS = {Outcome.OK: "#7aa874", Outcome.REFUSED: "#b0b0b0", Outcome.UNKNOWN: "#e0b050", Outcome.FAILED: "#dddddd"}


def text_of_violation(violation: Violation) -> str:
    culprit = violation.culprit
    possible = ", ".join(sorted(map(show, violation.possible))) or "none"
    shown = relevant(violation)
    start_ns = min(operation.call_ns for operation in shown)
    lines = [
        f"register {violation.key}: no order of its operations explains that client {culprit.client} at "
        f"{culprit.node} was answered `{culprit.describe()}`",
        f"  values that were possible then: {possible}",
        *(f"  {hint}" for hint in _hints(violation)),
        f"  the last {len(shown)} operations that matter, by call (seconds since the first; *: this one):",
    ]
    lines += [_line(operation, start_ns, "*" if operation is culprit else " ") for operation in shown]
    return "\n".join(lines)


def text_of_disorder(disorder: Disorder) -> str:
    start_ns = min(disorder.earlier.call_ns, disorder.later.call_ns)
    return "\n".join(
        [
            f"revisions: {disorder.what}",
            _line(disorder.earlier, start_ns, " "),
            _line(disorder.later, start_ns, "*"),
        ]
    )


def relevant(violation: Violation) -> list[Operation]:
    """The operations to show: the latest ones, and whatever wrote or ended the value the culprit is about."""
    culprit = violation.culprit
    about = {culprit.value, culprit.expected, *violation.possible} - {None, ABSENT}
    by_end = sorted(violation.operations, key=lambda o: (o.return_ns is None, o.return_ns or o.call_ns))
    latest = {operation.id for operation in by_end[-SHOWN:]}
    return [
        operation
        for operation in violation.operations
        if operation.id in latest
        or operation is culprit
        or (operation.has_effect and (operation.value in about or operation.expected in about))
    ]


def _hints(violation: Violation) -> list[str]:
    culprit = violation.culprit
    hints: list[str] = []
    if culprit.kind is Kind.READ and culprit.value != ABSENT:
        writers = [o for o in violation.operations if o.value == culprit.value and o.kind is not Kind.READ]
        if not any(o.has_effect for o in writers):
            hints.append(f"nobody wrote {culprit.value}, or it was certainly not written")
        readers = [o for o in violation.operations if o.value == culprit.value and o is not culprit]
        if readers and violation.possible:
            hints.append(f"{culprit.value} was overwritten or never took its place: this read is stale or undone")
    lost = [
        o
        for o in violation.operations
        if o.has_effect
        and o.outcome is Outcome.OK
        and o.value in violation.possible - {ABSENT}
        and (o.return_ns or 0) < culprit.call_ns
    ]
    hints += [f"the acknowledged `{o.describe()}` of client {o.client} is not seen: lost, or not read" for o in lost]
    return hints


def _line(operation: Operation, start_ns: int, mark: str) -> str:
    begun = (operation.call_ns - start_ns) / 1e9
    if operation.outcome is Outcome.UNKNOWN or operation.return_ns is None:
        ended = "     ..."
    else:
        ended = f"{(operation.return_ns - start_ns) / 1e9:8.3f}"
    revision = f" (revision {operation.revision})" if operation.revision is not None else ""
    who = f"client {operation.client:<3} {operation.node:<4}"
    return f"  {mark}{begun:8.3f} {ended}  {who} {operation.describe()}{revision}"


def page(title: str, violations: Sequence[Violation]) -> str:
    """An HTML page with a timeline for each violation."""
    parts = [f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><h1>{escape(title)}</h1>"]
    for violation in violations:
        parts.append(f"<pre>{escape(text_of_violation(violation))}</pre>")
        parts.append(_timeline(violation))
    return "\n".join(parts)


def _timeline(violation: Violation) -> str:
    shown = relevant(violation)
    assert violation.culprit.return_ns is not None
    first_ns = min(operation.call_ns for operation in shown)
    last_ns = violation.culprit.return_ns
    per_ns = (_WIDTH_PX - _LEFT_PX) / max(1, last_ns - first_ns)
    clients = sorted({operation.client for operation in shown})
    lanes = {client: at for at, client in enumerate(clients)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH_PX}" height="{_LANE_PX * (len(clients) + 1)}" '
        'font-family="monospace" font-size="11">'
    ]
    for client, lane in lanes.items():
        parts.append(f'<text x="2" y="{lane * _LANE_PX + 17}">client {client}</text>')
    for operation in shown:
        known_end = operation.outcome is not Outcome.UNKNOWN and operation.return_ns is not None
        end_ns = min(operation.return_ns or last_ns, last_ns) if known_end else last_ns
        x = _LEFT_PX + (operation.call_ns - first_ns) * per_ns
        width = max(2.0, (end_ns - operation.call_ns) * per_ns)
        colour = "#d04040" if operation is violation.culprit else _COLOURS[operation.outcome]
        y = lanes[operation.client] * _LANE_PX + 4
        title = escape(f"{operation.describe()} at {operation.node}")
        parts.append(
            f'<g><title>{title}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{colour}" '
            f'stroke="#444" {"" if known_end else "stroke-dasharray=4"}/>'
            f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(operation.describe())}</text></g>'
        )
    return "\n".join([*parts, "</svg>"])
