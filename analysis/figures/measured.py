"""Layers that ran on GPUs against their prediction (`headway verify --grid ... --csv`).

The file gives an interval for each phase; a layer's is their sum, as if all residuals had one sign.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from results import Table
from style import legend_below
from units import significant

_KINDS = {
    "ep": ("EP, a copy an expert", "#0072B2", "o", "-"),
    "ep_rank": ("EP, a copy a rank", "#56B4E9", "s", "--"),
    "hp": ("HP", "#D55E00", "D", "-"),
}


@dataclass(frozen=True)
class Layer:
    kind: str
    top_k: int
    family: tuple[str, ...]  # all that is not kind, k or H: what a line over k keeps
    predicted: float  # milliseconds, forward and backward
    low: float
    high: float
    measured: float


def _layers(results) -> list[Layer] | None:
    if len(results) != 1 or not isinstance(results[0], Table):
        return None
    columns = results[0].columns
    if not {"kind", "predicted_us", "measured_us", "top_k"} <= set(columns):
        return None
    shape = columns[: columns.index("pass")]
    ends: dict[tuple, list[float]] = defaultdict(lambda: [0.0, 0.0])
    whole: dict[tuple, dict[str, str]] = {}
    for row in results[0].rows:
        key = tuple(row[column] for column in shape)
        if row["phase"] == "layer":
            whole[key] = row
        else:
            ends[key][0] += float(row["low_us"]) / 1e3
            ends[key][1] += float(row["high_us"]) / 1e3
    kept = ("tokens", "hidden", "experts", "expert_width", "zipf", "ranks")
    return [
        Layer(
            row["kind"],
            int(row["top_k"]),
            tuple(row[column] for column in kept),
            float(row["predicted_us"]) / 1e3,
            *ends[key],
            float(row["measured_us"]) / 1e3,
        )
        for key, row in whole.items()
    ]


def judged(results, title: str | None):
    """Predicted over measured time of every layer, with its predicted interval and two bands."""
    layers = _layers(results)
    if not layers:
        return None
    figure, axes = plt.subplots(figsize=(7.0, 3.4))
    for half, shade in ((0.05, 0.16), (0.15, 0.08)):
        axes.axhspan(1 - half, 1 + half, color="#777777", alpha=shade, linewidth=0)
    for kind, (label, colour, marker, _) in _KINDS.items():
        own = [layer for layer in layers if layer.kind == kind]
        if own:
            ratios = [layer.predicted / layer.measured for layer in own]
            below = [max(layer.predicted - layer.low, 0) / layer.measured for layer in own]
            above = [max(layer.high - layer.predicted, 0) / layer.measured for layer in own]
            axes.errorbar(
                [layer.measured for layer in own],
                ratios,
                yerr=[below, above],
                linestyle="",
                marker=marker,
                color=colour,
                elinewidth=0.7,
                label=f"{label} ({len(own)})",
            )
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: significant(value))
    axes.set_xlabel("measured layer, forward and backward [ms]")
    axes.set_ylabel("predicted / measured, with interval")
    axes.set_title(title or "Held-out layers; bands: 5 % and 15 %")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=3)
    return figure


def over_k(results, title: str | None):
    """Layer time over k, predicted (line and interval) and measured (points): the longest family."""
    layers = _layers(results)
    if not layers:
        return None
    families = defaultdict(list)
    for layer in layers:
        families[layer.family].append(layer)
    family = max(families, key=lambda f: len(families[f]))
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    handles = []
    for kind, (label, colour, marker, line) in _KINDS.items():
        own = sorted((x for x in families[family] if x.kind == kind), key=lambda x: x.top_k)
        if own:
            ks = [layer.top_k for layer in own]
            axes.plot(
                ks, [x.predicted for x in own], color=colour, linestyle=line, marker="", label=label
            )
            axes.fill_between(
                ks,
                [x.low for x in own],
                [x.high for x in own],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(ks, [x.measured for x in own], color=colour, marker=marker, linestyle="")
            handles.append(Line2D([], [], color=colour, linestyle=line, marker=marker, label=label))
    handles.append(
        Line2D([], [], color="black", label="predicted, with interval"),
    )
    handles.append(Line2D([], [], color="black", linestyle="", marker="o", label="measured"))
    axes.set_xticks(sorted({layer.top_k for layer in families[family]}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("experts per token k")
    axes.set_ylabel("layer, forward and backward [ms]")
    tokens, hidden, experts, width, _, ranks = family
    axes.set_title(
        title or f"{ranks} ranks, {tokens} tokens each, d = {hidden}, E = {experts}, f = {width}"
    )
    legend_below(figure, handles, columns=3)
    return figure
