"""SARIF 2.1.0, for code scanning and for whatever else collects findings.

The rules are the classes. A result is one field of one object; its fingerprint is made of the rule, the object and
the field, so that the same drift is the same alert in every run, whatever its value is by then.
"""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

from controlplane.cli.drift.blocks import Blocks
from controlplane.cli.drift.classes import WARNINGS, WORDS, Class
from controlplane.cli.drift.report import Difference, Finding, Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = [klass for klass in Class if klass is not Class.IN_SYNC]


def write(report: Report, blocks: Blocks) -> str:
    driver = {
        "name": "flintctl drift",
        "semanticVersion": metadata.version("flintlock-controlplane"),
        "rules": [_rule(klass, report) for klass in _RULES],
    }
    results = [
        _result(finding, difference, report, blocks)
        for finding in report.findings
        if finding.klass is not Class.IN_SYNC
        for difference in finding.differences or (None,)
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {"revision": report.revision},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _rule(klass: Class, report: Report) -> dict[str, Any]:
    words = WORDS[klass]
    return {
        "id": f"flintlock/{klass.value}",
        "name": "".join(part.capitalize() for part in klass.value.split("_")),
        "shortDescription": {"text": words.title},
        "fullDescription": {"text": words.meaning},
        "help": {
            "text": f"{words.meaning} {words.advice}",
            "markdown": f"{words.meaning}\n\n{words.advice}",
        },
        "defaultConfiguration": {"level": _level(klass, report)},
    }


def _level(klass: Class, report: Report) -> str:
    if klass in report.fail_on:
        return "error"
    return "warning" if klass in WARNINGS else "note"


def _result(finding: Finding, difference: Difference | None, report: Report, blocks: Blocks) -> dict[str, Any]:
    location: dict[str, Any] = {
        "logicalLocations": [
            {"fullyQualifiedName": finding.address or finding.resource, "name": finding.resource, "kind": "resource"}
        ]
    }
    place = blocks.of(finding.address)
    if place is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": place.path, "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": place.line},
        }
    return {
        "ruleId": f"flintlock/{finding.klass.value}",
        "ruleIndex": _RULES.index(finding.klass),
        "level": _level(finding.klass, report),
        "message": {"text": finding.sentence(difference)},
        "locations": [location],
        "partialFingerprints": {"flintlock/v1": finding.fingerprint(difference)},
    }
