"""The figures: one function a figure, one module a family, one row a figure in FIGURES.

A figure is a function of (results, title) that returns a matplotlib figure, or None when the
results are not of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from figures import comparison, plans


@dataclass(frozen=True)
class FigureKind:
    name: str
    summary: str
    draw: Callable


# The first figure that accepts the given results is the default one.
FIGURES = (
    FigureKind("phases", "stacked phases of the step, a bar a plan (predict JSON)", plans.phases),
    FigureKind("memory", "memory of the busiest rank by item (predict JSON)", plans.memory),
    FigureKind("traffic", "bytes a rank sends by link class (predict JSON)", plans.traffic),
    FigureKind(
        "compare",
        "predicted or simulated against measured, by phase (Timeline CSVs)",
        comparison.by_phase,
    ),
    FigureKind("timeline-phases", "time by phase of each plan (Timeline CSV)", comparison.phases),
)
