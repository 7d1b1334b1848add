"""Reads headway's result files: JSON of `headway predict`, Timeline CSV of any producer, CSV of
`headway sweep`, and plain tables (`headway validate --format csv`, studies).

Figures read results through this module alone; nothing here computes a model number.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path


class ResultError(Exception):
    """A result file that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Prediction:
    """The JSON of `headway predict` (docs/results_format.md)."""

    path: Path
    data: dict

    @property
    def scenario(self) -> str:
        return self.data["scenario"]

    @property
    def plans(self) -> list[dict]:
        return self.data["plans"]


@dataclass(frozen=True)
class Simulation:
    """The JSON of `headway simulate` (docs/simulator.md)."""

    path: Path
    data: dict

    @property
    def scenario(self) -> str:
        return self.data["scenario"]

    @property
    def feasible_plans(self) -> list[dict]:
        return [plan for plan in self.data["plans"] if plan.get("feasible", True)]


@dataclass
class Timeline:
    """One (source, plan) of a Timeline CSV; spans are dictionaries with numbers as numbers."""

    path: Path
    head: dict[str, str]
    source: str
    plan: str
    spans: list[dict] = field(default_factory=list)

    @property
    def scenario(self) -> str:
        return self.head.get("scenario", "")


@dataclass
class Sweep:
    """CSV of `headway sweep`: a row a point and plan, as text; `axes` are the varied columns."""

    path: Path
    head: dict[str, str]
    axes: list[str]
    rows: list[dict[str, str]]

    @property
    def scenario(self) -> str:
        return self.head.get("scenario", "")


@dataclass
class Table:
    """A CSV with a header line and nothing else, told apart by its columns."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]


@dataclass(frozen=True)
class OtherJson:
    """Any other JSON result, told apart by its keys."""

    path: Path
    data: dict


Result = Prediction | Simulation | Timeline | Sweep | Table | OtherJson

# Not JSON, and no head: a table is known by its first column.
_TABLE_STARTS = ("part,", "category,", "kind,")

_TEXT_COLUMNS = {"source", "plan", "pass", "phase", "bottleneck"}
_INTEGER_COLUMNS = {"rank", "layer", "micro_batch", "count", "samples"}


def load(path: Path) -> list[Result]:
    """All results of a file: one for JSON, one for each (source, plan) of a Timeline CSV."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot read: {error}") from error
    if text.startswith("# headway timeline"):
        return list(_read_timelines(path, text.splitlines()))
    if text.startswith("# headway sweep"):
        return [_read_sweep(path, text.splitlines())]
    if text.startswith(_TABLE_STARTS):
        reader = csv.DictReader(text.splitlines())
        return [Table(path, list(reader.fieldnames or []), list(reader))]
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ResultError(
            f"{path}: neither a Timeline CSV of headway nor JSON ({error})"
        ) from error
    if not isinstance(data, dict):
        raise ResultError(f"{path}: a JSON object was expected")
    if "plans" in data and data.get("source") == "simulated":
        return [Simulation(path, data)]
    if "plans" in data and "scenario" in data:
        return [Prediction(path, data)]
    return [OtherJson(path, data)]


def _take_head(path: Path, lines: list[str]) -> dict[str, str]:
    """Removes the head; what remains is the header, the rows and the end mark."""
    head = {}
    while lines and lines[0].startswith("#"):
        key, _, value = lines.pop(0)[1:].partition(":")
        head[key.strip()] = value.strip()
    if not lines or not lines[-1].startswith("# end: "):
        raise ResultError(f"{path}: the file is cut: its end mark is missing")
    if lines[-1] != f"# end: {len(lines) - 2} rows":
        raise ResultError(f"{path}: the number of rows is not that of the end mark")
    return head


def _read_sweep(path: Path, lines: list[str]) -> Sweep:
    head = _take_head(path, lines)
    reader = csv.DictReader(lines[:-1])
    columns = list(reader.fieldnames or [])
    if "plan" not in columns:
        raise ResultError(f"{path}: a sweep without a column 'plan'")
    return Sweep(path, head, columns[: columns.index("plan")], list(reader))


def _read_timelines(path: Path, lines: list[str]) -> list[Timeline]:
    head = _take_head(path, lines)
    timelines: dict[tuple[str, str], Timeline] = {}
    for row in csv.DictReader(lines[:-1]):
        key = (row["source"], row["plan"])
        timeline = timelines.setdefault(key, Timeline(path, head, *key))
        timeline.spans.append(_span(path, row))
    return list(timelines.values())


def _span(path: Path, row: dict[str, str]) -> dict:
    try:
        return {
            key: value
            if key in _TEXT_COLUMNS
            else int(value)
            if key in _INTEGER_COLUMNS
            else float(value)
            for key, value in row.items()
        }
    except (TypeError, ValueError) as error:
        raise ResultError(f"{path}: a row cannot be read: {error}") from error
