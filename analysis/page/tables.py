"""Tables of the page: every text is escaped, every number stands beside the value that its text rounds."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from units import byte_unit, significant, time_unit


class Html(str):
    """What is HTML already; any other text is escaped where it is written."""

    __slots__ = ()


def markup(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text)


def joined(*parts: str) -> Html:
    return Html("".join(markup(part) for part in parts))


def number(value: float, shown: str | None = None) -> Html:
    """The script sorts and compares by the value; a reader sees the text."""
    return Html(f'<data value="{value!r}">{markup(shown or significant(value))}</data>')


@dataclass(frozen=True)
class Unit:
    factor: float = 1.0
    name: str = ""

    def shown(self, value: float) -> str:
        if abs(scaled := self.factor * value) >= 1000:
            return f"{scaled:,.0f}"
        text = significant(scaled)
        return "< 0.0001" if text == "0" and value else text

    def of(self, value: float) -> Html:
        return number(value, self.shown(value))

    def with_name(self, value: float) -> Html:
        return number(value, f"{self.shown(value)} {self.name}".rstrip())

    def head(self, text: str) -> str:
        return joined(text, f" [{self.name}]") if self.name else text


def time(*values: float) -> Unit:
    """One unit for all of them, that of the longest: numbers of a column are compared by eye."""
    return Unit(*time_unit(max(values, default=0.0)))


def size(*values: float) -> Unit:
    return Unit(*byte_unit(max(values, default=0.0)))


def duration(value: float) -> Html:
    return time(value).with_name(value)


def amount(value: float) -> Html:
    return size(value).with_name(value)


@dataclass(frozen=True)
class Head:
    text: str
    attributes: str = ""  # as HTML

    def html(self) -> str:
        return f'<th scope="col"{self.attributes}>{markup(self.text)}</th>'


def plan_head(name: str) -> Head:
    """The script hides columns of plans that are not chosen."""
    return Head(name, f' data-plan="{html.escape(name)}"')


@dataclass(frozen=True)
class Row:
    cells: list[str]
    attributes: str = ""  # of the row, as HTML

    def html(self) -> str:
        first, *others = (markup(cell) for cell in self.cells)
        rest = "".join(f"<td>{cell}</td>" for cell in others)
        return f'<tr{self.attributes}><th scope="row">{first}</th>{rest}</tr>'


def table(name: str, caption: str, heads: list, rows: list, foot=(), sortable=True) -> Html:
    """`name` is the table's id, and what a link calls it; rows may be lists of cells."""
    titles = "".join((head if isinstance(head, Head) else Head(head)).html() for head in heads)

    def lines(some) -> str:
        return "\n".join((row if isinstance(row, Row) else Row(row)).html() for row in some)

    tail = f"<tfoot>\n{lines(foot)}\n</tfoot>" if foot else ""
    sort = ' class="sortable"' if sortable else ""
    name = html.escape(name)
    return Html(
        f'<div class="wide" role="region" tabindex="0" aria-labelledby="{name}-caption">'
        f'<table id="{name}"{sort}><caption id="{name}-caption">{markup(caption)}</caption>'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{lines(rows)}\n</tbody>{tail}</table></div>"
    )


@dataclass(frozen=True)
class Compared:
    """A row of a table that has a column a plan; None: the plan has no such thing."""

    label: str
    values: list
    unit: Unit | None = None  # of this row, where it is not that of the table
    more: tuple = ()  # cells between the label and the plans

    def row(self, unit: Unit) -> Row:
        unit = self.unit or unit
        cells = [Html("&ndash;") if value is None else unit.of(value) for value in self.values]
        label = self.unit.head(self.label) if self.unit else self.label
        return Row([label, *self.more, *cells], f' data-factor="{unit.factor!r}"')


def comparison(name, caption, first, plans, rows, foot=(), unit=Unit(), sortable=True) -> Html:
    """A column a plan. The script adds the difference of the two plans that are chosen."""
    heads = [*first, *(plan_head(plan["name"]) for plan in plans)]
    return table(
        name, caption, heads, [r.row(unit) for r in rows], [r.row(unit) for r in foot], sortable
    )


# What columns of records are called; others by their key.
_WORDS = {
    "time_s": "exposed",
    "time_interval_s": "90 % interval",
    "hidden_s": "hidden",
    "launch_wait_s": "waits for the host",
    "bytes_per_rank_max": "bytes, busiest rank",
    "flops_per_rank_max": "work, busiest rank",
    "bottleneck": "decided by",
    "allocated_bytes": "tensors",
    "message_bytes": "size of a message",
    "message_s": "time of a message",
}


def _kind(key: str, values: list) -> Unit:
    flat = [end for value in values for end in (value if isinstance(value, list) else [value])]
    if key.endswith("_s"):
        return time(*flat)
    if "flops" in key:
        return Unit(1e-12, "TFLOP")
    return size(*flat) if "bytes" in key else Unit()


def _cell(value, unit: Unit) -> str:
    if not _showable(value):
        return Html("&ndash;")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return joined(unit.of(value[0]), " to ", unit.of(value[1]))
    if isinstance(value, int) and not unit.name:
        return number(value, f"{value:,}")
    return value if isinstance(value, str) else unit.of(value)


def _showable(value) -> bool:
    """Numbers, their intervals and words; a later version may add keys with other things."""
    if isinstance(value, list):
        return len(value) == 2 and all(isinstance(end, (int, float)) for end in value)
    return isinstance(value, (str, bool, int, float))


def records(name: str, caption: str, entries: list[dict], sortable=True) -> Html:
    """A row an object, a column a key."""
    keys = dict.fromkeys(k for entry in entries for k, value in entry.items() if _showable(value))
    heads, columns = [], []
    for key in keys:
        present = [entry[key] for entry in entries if _showable(entry.get(key))]
        plain = any(isinstance(value, (str, bool)) for value in present)
        unit = Unit() if plain else _kind(key, present)
        heads.append(unit.head(_WORDS.get(key, re.sub("_(s|bytes)$", "", key).replace("_", " "))))
        columns.append([_cell(entry.get(key), unit) for entry in entries])
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    return table(name, caption, heads, rows, sortable=sortable)
