"""Checks of result files: what a figure reads is there and is of its kind, or one line says where it is not.

A specification is a value that looks like the data: a type, `[spec]` a list, `{key: spec}` an object (other keys may
stand beside), `Map(spec)` an object with any keys, `Maybe(spec)` a key that may be absent, a tuple the accepted texts.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from command import BadInput


@dataclass(frozen=True)
class Map:
    of: object


@dataclass(frozen=True)
class Maybe:
    of: object


@dataclass(frozen=True)
class Pair:
    of: object


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _shown(value) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _is(value, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)


def check(path: Path, spec, value, where: str = "") -> None:
    """Raises BadInput at the first place where `value` is not as `spec` says."""

    def fail(accepted: str):
        raise BadInput(f"{path}: {where or 'file'}: {_shown(value)}; accepted: {accepted}")

    if isinstance(spec, type):
        if not _is(value, spec):
            fail(_NAMES[spec])
    elif isinstance(spec, tuple):
        if not isinstance(value, str) or value not in spec:
            fail(", ".join(spec))
    elif isinstance(spec, (list, Pair)):
        if not isinstance(value, list) or (isinstance(spec, Pair) and len(value) != 2):
            fail("a list of two" if isinstance(spec, Pair) else "a list")
        inner = spec.of if isinstance(spec, Pair) else spec[0]
        for index, entry in enumerate(value):
            check(path, inner, entry, f"{where}[{index}]")
    else:
        if not isinstance(value, dict):
            fail("an object")
        dot = "." if where else ""
        if isinstance(spec, Map):
            for key, entry in value.items():
                check(path, spec.of, entry, f"{where}{dot}{key}")
            return
        for key, inner in spec.items():
            optional = isinstance(inner, Maybe)
            if key in value:
                check(path, inner.of if optional else inner, value[key], f"{where}{dot}{key}")
            elif not optional:
                raise BadInput(f"{path}: {where}{dot}{key}: is missing")


def read_rows(path: Path, lines: list[str], first: int) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of CSV lines whose header stands on line `first` of the file."""
    reader = csv.reader(lines, strict=True)
    rows = []
    try:
        columns = next(reader, [])
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise BadInput(f"{path}:{first}: the column '{twice[0]}' stands twice")
        for cells in reader:
            if len(cells) != len(columns):
                raise BadInput(
                    f"{path}:{first + reader.line_num - 1}: {len(cells)} fields; "
                    f"accepted: {len(columns)}, as the header has"
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise BadInput(f"{path}:{first + reader.line_num - 1}: {error}") from error
    return columns, rows


def check_columns(path: Path, columns: list[str], needed) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise BadInput(f"{path}: the column '{missing[0]}' is missing")


def check_choice(path: Path, line: int, column: str, text: str, accepted) -> None:
    if text not in accepted:
        raise BadInput(f"{path}:{line}: {column}: '{text[:40]}'; accepted: {', '.join(accepted)}")


def check_number(
    path: Path, line: int, column: str, text: str, empty: bool = False, whole: bool = False
) -> None:
    """Finite; an empty field only where the number may be absent."""
    if text == "" and empty:
        return
    try:
        good = math.isfinite(int(text) if whole else float(text))
    except (ValueError, OverflowError):
        good = False
    if not good:
        accepted = "a whole number" if whole else "a number"
        raise BadInput(f"{path}:{line}: {column}: '{text[:40]}'; accepted: {accepted}")
