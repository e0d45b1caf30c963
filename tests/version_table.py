"""The tests of one part on several versions of it, as a table in Markdown. Standard library only."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Report:
    """What became of the tests on one version."""

    version: str
    results: dict[str, str]  # by test: ok, skipped or **failed**
    passed: bool
    printed: str  # by pytest


def results_of(junit: Path) -> dict[str, str]:
    """Return the results in pytest's report, none if it wrote no report."""
    found: dict[str, str] = {}
    for case in ET.parse(junit).iter("testcase") if junit.exists() else ():
        test, bracket, parameters = case.get("name", "").removeprefix("test_").partition("[")
        name = test.replace("_", " ") + bracket + parameters
        kinds = {child.tag for child in case}
        found[name] = "**failed**" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "ok"
    return found


def table(reports: list[Report]) -> str:
    """Return a line a test, a column a version."""
    tests = dict.fromkeys(name for report in reports for name in report.results)
    lines = ["| test | " + " | ".join(report.version for report in reports) + " |", "|---" * (len(reports) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(report.results.get(name, "-") for report in reports) + " |" for name in tests]
    return "\n".join(lines)
