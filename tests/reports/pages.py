"""Pages as a browser reads them: their elements, and the texts in them."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

from icm_hpc.reports import collect, page
from icm_hpc.rundir.folder import RunDir

Attributes = list[tuple[str, str | None]]
SILENT = ("script", "style")  # whose text is no text of the page


@dataclass
class Page:
    """What is in a page."""

    html: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    scripts: list[str] = field(default_factory=list)

    def attributes(self, name: str) -> list[str]:
        """Return the values of an attribute, of all elements."""
        return [values[name] for _, values in self.elements if name in values]

    def count(self, tag: str) -> int:
        """Return how many elements of a kind there are."""
        return sum(one == tag for one, _ in self.elements)


class _Reader(HTMLParser):
    def __init__(self, page_: Page) -> None:
        super().__init__()
        self.page, self.inside = page_, ""

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self.page.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag if tag in SILENT else self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.page.scripts.append(data)
        elif not self.inside:
            self.page.text += data


def of(run_dir: RunDir) -> Page:
    """Return the page of a run."""
    return read(page.render(collect.collect(run_dir)))


def read(html: str) -> Page:
    """Return what is in a page."""
    found = Page(html)
    _Reader(found).feed(html)
    return found
