"""The pages name settings, messages and other pages that exist."""

import dataclasses
import re
from pathlib import Path

import pytest

from icm_hpc.config.keys import SECTIONS
from icm_hpc.driver.labels import LabelRow
from icm_hpc.driver.summary import ShardFigures, SinceStart, Summary
from icm_hpc.rundir.trace import TraceLine

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "slurm" / "README.md",
        ROOT / "tests" / "cluster" / "README.md",
    ]
)
# Strings that are broken over lines are one string.
SOURCE = re.sub(r'"\s*\n\s*f?"', "", "\n".join(file.read_text() for file in (ROOT / "icm_hpc").rglob("*.py")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(
        re.findall(r"(?<![.\w/])(model|task|server|search|cluster|run)\.([a-z_]+)(?=[`=\s,;)])", page.read_text())
    )
    files = {(name, ending) for name in ("server", "driver", "search") for ending in ("log", "md", "py")} | {
        ("run", "py"),
        ("model", "json"),
    }
    known = {(section, f.name) for section, kind in SECTIONS.items() for f in dataclasses.fields(kind)}
    assert named - files <= known


def test_every_key_of_the_admins_page_is_one_of_a_cluster() -> None:
    table = (ROOT / "slurm" / "README.md").read_text().split("| key of `cluster:` |")[1].split("\n\n")[0]
    keys = {word for line in table.splitlines()[2:] for word in re.findall(r"`([a-z_]+)[`:]", line.split("|")[2])}
    assert {"gpu_type", "server_launcher", "account"} <= keys
    assert keys - {"gres", "gpus", "none"} <= {f.name for f in dataclasses.fields(SECTIONS["cluster"])}


def test_every_symptom_of_the_troubleshooting_page_is_something_that_the_software_says() -> None:
    table = (ROOT / "docs" / "troubleshooting.md").read_text().split("| it says |")[1]
    symptoms = [line.split("|")[1].strip() for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(symptoms) > 20
    said = [part.strip() for symptom in symptoms for part in re.split(r"\.\.\.|;| N | M$|✗|, ", symptom)]
    unsaid = [part for part in said if part and part not in SOURCE]
    assert unsaid == []


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text())
        ahead += [(page.parent / link).resolve() for link in links if not link.startswith("https://")]
    assert set(PAGES) - seen == set()


@pytest.mark.parametrize(
    "kind", [LabelRow, Summary, ShardFigures, SinceStart, TraceLine], ids=lambda kind: kind.__name__
)
def test_every_field_of_an_output_file_is_described(kind: type) -> None:
    page = (ROOT / "docs" / "outputs.md").read_text()
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in page] == []
