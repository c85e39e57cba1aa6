"""Known vulnerabilities of a lock's packages, by PyPI's own documents: `python -m tests.support.advisories LOCK`.

What pip-audit asks as well, for where it cannot: it wants the document of each version, and many mirrors have only
those of projects, which tell of the newest version. So a locked version that is not the newest is one of which nothing
is known there, and the check fails, as it does for every vulnerability.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import requests

PYPI = "https://pypi.org/pypi"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def document(session: requests.Session, path: str) -> dict[str, Any] | None:
    answer = session.get(f"{PYPI}/{path}/json", timeout=30)
    return answer.json() if answer.ok else None


def problems_of(session: requests.Session, name: str, version: str) -> list[str]:
    """What speaks against this version; nothing when it is known to have no vulnerability."""
    found = document(session, f"{name}/{version}") or document(session, name)
    if found is None or found["info"]["version"] != version:
        newest = "" if found is None else f"; the newest version is {found['info']['version']}"
        return [f"nothing is known of {version}{newest}"]
    return [
        f"{each['id']}: fixed in {', '.join(each['fixed_in']) or 'no version'}" for each in found["vulnerabilities"]
    ]


def main(lock: Path) -> int:
    pins = _PIN.findall(lock.read_text())
    with requests.Session() as session:
        found = {f"{name} {version}": problems_of(session, name, version) for name, version in pins}
    for package, problems in found.items():
        for problem in problems:
            print(f"{package}: {problem}")
    print(f"{len(pins)} packages, {sum(map(bool, found.values()))} with problems")
    return 1 if any(found.values()) or not pins else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
