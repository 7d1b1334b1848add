"""Colours and units that all figures share."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from palette import LINKS, PHASES, SOURCES  # noqa: F401

STYLE_FILE = Path(__file__).with_name("headway.mplstyle")


def use_style() -> None:
    plt.style.use(STYLE_FILE)


def draw_csv(draw: Callable, usage: str) -> int:
    """Draws the rows of the CSV that the command line names into the file that it names."""
    if len(sys.argv) != 3:
        print(usage, file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    use_style()
    draw(rows).savefig(sys.argv[2])
    return 0


def time_unit(seconds: float) -> tuple[float, str]:
    """Factor and name of the unit in which a figure with this longest time is drawn."""
    if seconds >= 1.0:
        return 1.0, "s"
    return (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")


def byte_unit(count: float) -> tuple[float, str]:
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return 1.0 / size, name
    return 1.0, "B"


def significant(value: float) -> str:
    """Three significant digits without an exponent: 1.23, 12.3, 1234."""
    if value == 0:
        return "0"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text


def legend_below(figure, handles, columns: int = 5) -> None:
    """One legend under the axes, where it never covers data; `savefig.bbox: tight` keeps it.

    At most `columns`, and no row that is nearly empty.
    """
    rows = math.ceil(len(handles) / columns)
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=columns)
