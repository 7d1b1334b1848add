"""The figures: one function a figure, one module a family, one row a figure in FIGURES.

A figure is a function of (results, title) that returns a matplotlib figure, or None when the
results are not of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from figures import comparison, measured, pipeline, plans, published, ranks, simulation, sweeps


@dataclass(frozen=True)
class FigureKind:
    name: str
    summary: str
    draw: Callable


# The first figure that accepts the given results is the default one.
FIGURES = (
    FigureKind("phases", "stacked phases of the step, a bar a plan (predict JSON)", plans.phases),
    FigureKind("memory", "memory of the busiest rank by item (predict JSON)", plans.memory),
    FigureKind(
        "memory-waterfall",
        "memory of the worst stage, item upon item (predict JSON)",
        plans.memory_waterfall,
    ),
    FigureKind(
        "memory-stages", "memory of each stage of a pipeline (predict JSON)", plans.memory_stages
    ),
    FigureKind("traffic", "bytes a rank sends by link class (predict JSON)", plans.traffic),
    FigureKind(
        "compare",
        "predicted or simulated against measured, by phase (Timeline CSVs)",
        comparison.by_phase,
    ),
    FigureKind("step", "step time and speedup along one axis (sweep CSV)", sweeps.step),
    FigureKind("sweep-traffic", "bytes sent along one axis (sweep CSV)", sweeps.traffic),
    FigureKind("scaling", "tokens/s and GPU against nodes (sweep CSV)", sweeps.scaling),
    FigureKind(
        "memory-skew",
        "memory p50 and p99 over routing.seed against routing.skew (sweep CSV)",
        sweeps.memory_skew,
    ),
    FigureKind("break-even", "best HP over best EP over two axes (sweep CSV)", sweeps.break_even),
    FigureKind("hp-gain", "best HP over best EP, a line a sweep (sweep CSVs)", sweeps.hp_gain),
    FigureKind("rank-load", "expert time of every rank (Timeline CSV with ranks)", ranks.load),
    FigureKind(
        "validation",
        "predicted over published (validate --format csv)",
        published.validation,
    ),
    FigureKind(
        "paper-study",
        "speedup under each assumption (scripts/studies/paper.py)",
        published.paper_study,
    ),
    FigureKind("layers", "predicted over measured layers (verify --grid --csv)", measured.judged),
    FigureKind(
        "layers-k",
        "layer time against k, predicted and measured (verify --grid --csv)",
        measured.over_k,
    ),
    FigureKind(
        "predict-simulate",
        "step time predicted and simulated, a pair of bars a plan (simulate JSON)",
        simulation.predicted_and_simulated,
    ),
    FigureKind("finish", "when each rank finishes (simulate JSON)", simulation.finish_times),
    FigureKind(
        "links",
        "use of the busiest links over time (simulate JSON with --link-bins)",
        simulation.link_heat_map,
    ),
    FigureKind(
        "pipeline",
        "what each pipeline rank runs when (Timeline CSV of one plan with a pipeline)",
        pipeline.order,
    ),
    FigureKind("timeline-phases", "time by phase of each plan (Timeline CSV)", comparison.phases),
    FigureKind(
        "gantt",
        "what ranks do when, by stream; --ranks and --layers choose (Timeline CSV of one plan)",
        simulation.gantt,
    ),
)
