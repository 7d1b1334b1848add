"""The HTML of a report as tables of cells, by the parser of the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = ("meta", "input", "link", "br")


@dataclass
class Cell:
    text: str = ""
    numbers: list[float] = field(default_factory=list)


@dataclass
class Row:
    attributes: dict
    cells: list[Cell] = field(default_factory=list)

    @property
    def numbers(self) -> list[float]:
        return [number for cell in self.cells for number in cell.numbers]


class Page(HTMLParser):
    """Raises ValueError where an element is closed that is not the innermost open one."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.numbers: list[float] = []
        self.tables: dict[str, list[Row]] = {}
        self.texts: dict[str, list[str]] = {}  # by innermost element
        self.table: list[Row] | None = None
        self.feed(text)
        self.close()
        if self.open:
            raise ValueError(f"never closed: {self.open}")

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if len(found) != len(attributes):
            raise ValueError(f"an attribute twice: {attributes}")
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = self.tables.setdefault(found["id"], [])
        elif tag == "tr":
            self.table.append(Row(found))
        elif tag in ("th", "td"):
            self.table[-1].cells.append(Cell())
        elif tag == "data":
            self.numbers.append(float(found["value"]))
            if self.table and "caption" not in self.open:
                self.table[-1].cells[-1].numbers.append(float(found["value"]))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            raise ValueError(f"</{tag}> inside {self.open}")
        self.open.pop()
        if tag == "table":
            self.table = None

    def handle_data(self, text):
        if not self.open:
            return
        self.texts.setdefault(self.open[-1], []).append(text)
        if self.table and ("td" in self.open or "th" in self.open):
            self.table[-1].cells[-1].text += text

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.elements if attribute in found]


def numbers_of(value) -> list[float]:
    """Every number of a JSON value; booleans are none."""
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers_of(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in numbers_of(entry)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
