"""Markdown for a comment under a merge request: counts first, then what was found, in bounded length.

The first line is a comment by which a pipeline finds and replaces what it wrote before. Cells hold what guests and
agents said, so everything in them is quoted: nothing becomes a link, a mention or markup.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.cli.drift.classes import WORDS, Class
from controlplane.cli.drift.report import Difference, Finding, Report

MARKER = "<!-- flintctl drift -->"
LIMIT = 60_000
"""Characters; comments of GitHub end at 65,536."""
_HEAD = "| Resource | Host | Field | Declared | Observed | Cause |\n|---|---|---|---|---|---|"
_ROOM = 200
"""Kept for the line that says how many rows were left off."""
_HARMLESS = str.maketrans("`|", "'¦")


def write(report: Report, limit: int = LIMIT) -> str:
    lines = [MARKER, _title(report), ""]
    size = sum(len(line) + 1 for line in lines)
    rows = list(_rows(report))
    kept = 0
    for text in rows:
        if size + len(text) + 1 > limit - _ROOM:
            break
        lines.append(text)
        size += len(text) + 1
        kept += 1
    left = sum(1 for text in rows[kept:] if text.startswith("| "))
    if left:
        lines += ["", f"{left} more lines are left off here; `flintctl drift -o json` has all of them."]
    return "\n".join(lines)


def _title(report: Report) -> str:
    counts = {klass: number for klass, number in report.counts().items() if klass is not Class.IN_SYNC}
    if not counts:
        return f"### Flintlock: nothing differs from the intent\n\nCompared at revision {report.revision}."
    told = ", ".join(f"{number} {WORDS[klass].title.lower()}" for klass, number in counts.items())
    verdict = "Drift was found." if report.fails else "No drift that fails this run."
    return f"### Flintlock: {told}\n\n{verdict} Compared at revision {report.revision}."


def _rows(report: Report) -> Iterator[str]:
    for klass in report.counts():
        if klass is Class.IN_SYNC:
            continue
        words = WORDS[klass]
        yield f"\n#### {words.title}\n\n{words.meaning} {words.advice}\n\n{_HEAD}"
        for finding in report.of(klass):
            for difference in finding.differences or (Difference(""),):
                yield _row(finding, difference)


def _row(finding: Finding, difference: Difference) -> str:
    name = finding.resource
    if finding.address and finding.address not in name:
        name = f"{name}, {finding.address}"
    cells = (name, finding.host, difference.pointer, difference.desired, difference.observed, difference.cause)
    return f"| {' | '.join(_quoted(cell) for cell in cells)} |"


def _quoted(cell: str) -> str:
    """A code span that nothing in `cell` ends; a bar would end the cell of the table, and the span with it."""
    return f"`{cell.translate(_HARMLESS)}`" if cell else ""
