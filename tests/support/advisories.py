"""pip-audit for where PyPI is reached by a mirror: `python advisories.py [what pip-audit takes]`, with its interpreter.

pip-audit asks PyPI for the document of each version, and many mirrors have only those of projects, which tell of the
newest version. So where there is none, the project's is asked for, and stands for its newest version alone: any other
version stays one that cannot be audited.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import requests
from pip_audit._cli import audit
from pip_audit._service import pypi

_VERSION = re.compile(r"^(?P<project>https://pypi\.org/pypi/[^/]+)/(?P<version>[^/]+)/json$")


class ByProject(requests.Session):
    """Asks for a version, and where that is not found, for its project."""

    def get(self, url: str | bytes, **options: Any) -> requests.Response:
        answer = super().get(url, **options)
        asked = _VERSION.match(str(url))
        if answer.status_code != requests.codes.not_found or asked is None:
            return answer
        project = super().get(f"{asked['project']}/json", **options)
        is_newest = project.ok and project.json()["info"]["version"] == asked["version"]
        return project if is_newest else answer


pypi.caching_session = lambda *_, **__: ByProject()
sys.exit(audit())
