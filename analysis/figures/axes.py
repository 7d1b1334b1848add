"""Axes of sweeps: values with units as numbers, labels in words, and the look of a plan."""

from __future__ import annotations

import re

from matplotlib.ticker import FixedLocator, NullLocator

from palette import LAYERS
from results import Sweep
from units import significant

# What an axis is called in a figure.
LABELS = {
    "model.moe.top_k": "experts per token k",
    "equal_parameters.granularity": "granularity g (E g experts of width f / g, k g a token)",
    "equal_batch.nodes": "nodes, global batch kept",
    "cluster.nodes": "nodes, batch per GPU kept",
    "routing.skew": "router skew, Zipf exponent",
    "routing.seed": "draw of the router",
    "cluster.nvlink.bandwidth": "NVLink bandwidth of a GPU",
    "cluster.pcie.bandwidth": "PCIe bandwidth of a GPU",
    "cluster.fabric.nic": "bandwidth of a network card",
    "cluster.fabric.oversubscription": "oversubscription of the spine (x:1)",
    "batch.sequences_per_rank": "sequences per GPU",
}

# For lines that are not plans.
LINES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "D", "--"),
    ("#009E73", "s", "-."),
    ("#CC79A7", "^", ":"),
    ("#000000", "v", "-"),
    ("#E69F00", "P", "--"),
)

_QUANTITY = re.compile(r"\s*([-+0-9.eE]+)\s*(.*?)\s*")


def is_hp(row: dict[str, str]) -> bool:
    return row["layer"] == "head_parallel"


def looks(layers: dict[str, str]) -> dict[str, dict]:
    """Colour, marker and line of each plan, by how its MoE layer is split."""
    result, used = {}, dict.fromkeys(LAYERS, 0)
    for plan, layer in layers.items():
        palette = LAYERS[layer]
        colour, marker, line = palette[used[layer] % len(palette)]
        used[layer] += 1
        result[plan] = {"color": colour, "marker": marker, "linestyle": line}
    return result


def quantity(text: str) -> tuple[float, str] | None:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    try:
        return float(match[1]), match[2]
    except ValueError:
        return None


def is_numeric(sweep: Sweep, axis: str) -> bool:
    parsed = [quantity(row[axis]) for row in sweep.rows]
    return all(parsed) and len({unit for _, unit in parsed}) == 1


def label(sweep: Sweep, axis: str) -> str:
    text = LABELS.get(axis, axis)
    parsed = quantity(sweep.rows[0][axis]) if is_numeric(sweep, axis) else None
    return f"{text} [{parsed[1]}]" if parsed and parsed[1] else text


def values(sweep: Sweep, axis: str) -> list[float]:
    """The distinct values in the order of the sweep."""
    return list(dict.fromkeys(quantity(row[axis])[0] for row in sweep.rows))


def plans(sweep: Sweep) -> list[str]:
    return list(dict.fromkeys(row["plan"] for row in sweep.rows))


def layers(sweep: Sweep) -> dict[str, str]:
    """How each plan splits its MoE layer, plans in the order of the sweep."""
    return {row["plan"]: row["layer"] for row in sweep.rows}


def varied(sweep: Sweep) -> list[str]:
    return [axis for axis in sweep.axes if len({row[axis] for row in sweep.rows}) > 1]


def series(sweep: Sweep, axis: str, plan: str, column: str) -> tuple[list[float], list[float]]:
    """Points of one plan along one axis; invalid ones are left out."""
    points = [
        (quantity(row[axis])[0], float(row[column]))
        for row in sweep.rows
        if row["plan"] == plan and row[column] not in ("", None)
    ]
    points.sort()
    return [x for x, _ in points], [y for _, y in points]


def scale_x(axes, xs: list[float], skip: int = 1) -> None:
    """Ticks at the swept values; logarithmic where they grow by factors."""
    xs = sorted(set(xs))
    if len(xs) > 2 and xs[0] > 0 and xs[-1] / xs[0] >= 8:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(xs[::skip]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: significant(value))
