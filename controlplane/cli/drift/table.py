"""The table for people: one line for each field that differs."""

from __future__ import annotations

from controlplane.cli import output
from controlplane.cli.columns import age
from controlplane.cli.drift.classes import Class
from controlplane.cli.drift.report import Difference, Report
from controlplane.cli.values import Json

_HEADERS = ["CLASS", "RESOURCE", "HOST", "FIELD", "DESIRED", "OBSERVED", "SINCE", "CAUSE"]


def show(report: Report, summary: Json, now_ms: int, *, everything: bool) -> None:
    """Print it; `summary` is the API's count of all classes, those that were not asked for among them."""
    listed = [each for each in report.findings if everything or each.klass is not Class.IN_SYNC]
    addressed = any(each.address for each in listed)
    rows: list[list[str]] = []
    for finding in listed:
        head = [finding.klass.value, finding.resource, finding.host]
        for field in finding.differences or (Difference(""),):
            cells = [field.pointer, field.desired, field.observed, age(field.since, now_ms), field.cause]
            rows.append([*head, *cells, *([finding.address] if addressed else [])])
    output.table([*_HEADERS, *(["ADDRESS"] if addressed else [])], rows, empty="Nothing differs from the intent.")
    if rows:
        told = {str(key): value for key, value in summary.items() if value}
        told |= {klass.value: count for klass, count in report.counts().items() if klass.value not in summary}
        print(f"\n{', '.join(f'{count} {klass}' for klass, count in told.items()) or 'none'}")
