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


def legend_below(figure, handles, columns: int = 5) -> None:
    """One legend under the axes, where it never covers data; `savefig.bbox: tight` keeps it.

    At most `columns`, and no row that is nearly empty.
    """
    rows = math.ceil(len(handles) / columns)
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=columns)
