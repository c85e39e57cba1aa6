"""JUnit XML, as CI servers read it: one test case for each object, in sync ones among them.

What the run fails on is a failure. What is only worth a look (an unreachable host, say) is skipped, with the reason:
it neither passed nor failed. One more case says that the comparison was made, since some servers take a report without
any case for a broken one.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from controlplane.cli.drift.classes import FROM_PLAN, WORDS, Class
from controlplane.cli.drift.report import Finding, Report


def write(report: Report) -> str:
    fleet = [each for each in report.findings if each.klass not in FROM_PLAN]
    plan = [each for each in report.findings if each.klass in FROM_PLAN]
    suites = ET.Element("testsuites", name="flintctl drift")
    made = [_suite(suites, "flintlock", fleet, report)]
    ET.SubElement(
        made[0], "testcase", classname="flintlock.cluster", name=f"compared at revision {report.revision}", time="0"
    )
    if plan:
        made.append(_suite(suites, "terraform", plan, report))
    for suite in made:
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
        suite.set("errors", "0")
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True)


def _suite(parent: ET.Element, name: str, findings: Iterable[Finding], report: Report) -> ET.Element:
    suite = ET.SubElement(parent, "testsuite", name=name)
    for finding in findings:
        prefix = f"{name}.{finding.klass.value}" if finding.klass in FROM_PLAN else f"{name}.microvm"
        case = ET.SubElement(suite, "testcase", classname=prefix, name=finding.address or finding.resource, time="0")
        if finding.klass is Class.IN_SYNC:
            continue
        outcome = ET.SubElement(
            case,
            "failure" if finding.klass in report.fail_on else "skipped",
            message=finding.sentence(finding.differences[0] if finding.differences else None),
            type=finding.klass.value,
        )
        lines = [finding.sentence(each) for each in finding.differences] or [finding.sentence()]
        words = WORDS[finding.klass]
        outcome.text = "\n".join([*lines, "", words.meaning, words.advice])
    return suite
