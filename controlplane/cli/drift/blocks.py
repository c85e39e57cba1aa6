"""Where a resource is written: the line of its block in the files of a Terraform configuration.

Code scanning shows a finding at a file and line, and a plan tells neither. Only the root module is looked at: an
address inside a module has no place, and is shown without one. Reading the first line of each block is enough, so this
needs no HCL parser; `terraform fmt` writes blocks in exactly this form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r'^\s*resource\s+"([\w-]+)"\s+"([\w-]+)"\s*\{')
_ADDRESS = re.compile(r"([\w-]+\.[\w-]+)(\[.*\])?")
_FILE_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Place:
    path: str
    """As the directory was named, so relative to where the program was called."""
    line: int


class Blocks:
    def __init__(self, places: dict[str, Place]) -> None:
        self._places = places

    def of(self, address: str) -> Place | None:
        found = _ADDRESS.fullmatch(address)
        return self._places.get(found[1]) if found is not None else None


def find(directory: Path) -> Blocks:
    """The blocks of the `*.tf` files of `directory`; files that cannot be read as text have none."""
    places: dict[str, Place] = {}
    for path in sorted(directory.glob("*.tf")):
        if path.stat().st_size > _FILE_LIMIT_BYTES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if found := _BLOCK.match(line):
                places[f"{found[1]}.{found[2]}"] = Place(path.as_posix(), number)
    return Blocks(places)
