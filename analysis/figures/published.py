"""Predictions against published measurements, and the paper's study."""

from __future__ import annotations

import matplotlib.pyplot as plt

from results import Table
from style import legend_below

_CATEGORIES = {
    "all_to_all": ("all-to-all, held-out sizes", "#56B4E9", "o"),
    "all_to_all_repeat": ("all-to-all, other runs", "#999999", "."),
    "exchange": ("deduplicated exchanges", "#E69F00", "s"),
    "layer": ("one MoE layer", "#0072B2", "D"),
    "step": ("whole training steps", "#D55E00", "^"),
    "dense_step": ("steps of dense models", "#009E73", "v"),
}


def _held_out(table: Table) -> list[dict[str, str]]:
    return [
        row
        for row in table.rows
        if row["unit"] == "s" and row["verdict"] not in ("fitted", "") and row["predicted"]
    ]


def validation(results, title: str | None):
    """Every held-out time: predicted over published against the published time, with bands."""
    if len(results) != 1 or not isinstance(results[0], Table):
        return None
    if not {"category", "predicted", "published"} <= set(results[0].columns):
        return None
    rows = _held_out(results[0])
    figure, axes = plt.subplots(figsize=(7.0, 3.4))
    for half, shade in ((0.05, 0.16), (0.15, 0.08)):
        axes.axhspan(1 - half, 1 + half, color="#0072B2", alpha=shade, linewidth=0)
    found = list(dict.fromkeys(row["category"] for row in rows))
    spare = iter([("#CC79A7", "P"), ("#000000", "X"), ("#F0E442", "*")])
    for category in found:
        name, colour, marker = _CATEGORIES.get(category) or (
            category.replace("_", " "),
            *next(spare),
        )
        own = [row for row in rows if row["category"] == category]
        axes.plot(
            [float(row["published"]) for row in own],
            [float(row["predicted"]) / float(row["published"]) for row in own],
            linestyle="",
            marker=marker,
            markersize=5,
            color=colour,
            label=f"{name} ({len(own)})",
        )
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("published time [s]")
    axes.set_ylabel("predicted / published")
    axes.set_title(title or "Held-out predictions; bands: 5 % and 15 %")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=3)
    return figure


def paper_study(results, title: str | None):
    """What each assumption does to HP's speedup: a dot a ratio, a line an assumption."""
    if len(results) != 1 or not isinstance(results[0], Table):
        return None
    table = results[0]
    if not {"assumption", "ratio", "speedup"} <= set(table.columns):
        return None
    rows = [row for row in table.rows if row["part"] == "sensitivity"]
    names = list(dict.fromkeys(row["assumption"] for row in rows))
    shown = {
        "paper HP / paper EP": ("#D55E00", "D"),
        "tuned HP / tuned EP": ("#0072B2", "o"),
        "tuned HP / paper EP": ("#009E73", "s"),
    }
    figure, axes = plt.subplots(figsize=(7.0, 0.9 + 0.22 * len(names)))
    for ratio, (colour, marker) in shown.items():
        speedups = {
            row["assumption"]: float(row["speedup"]) for row in rows if row["ratio"] == ratio
        }
        axes.plot(
            [speedups[name] for name in names],
            range(len(names)),
            linestyle="",
            marker=marker,
            color=colour,
            label=ratio,
        )
    axes.axvline(1.0, color="black", linewidth=0.8)
    for published, version, side in ((1.61, "v1 ", "right"), (1.82, " PMLR", "left")):
        axes.axvline(published, color="#777777", linestyle="--", linewidth=0.9)
        axes.annotate(
            f"{version}{published}x" if side == "right" else f"{published}x{version}",
            (published, -0.8),
            fontsize=7,
            ha=side,
            va="bottom",
            annotation_clip=False,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.set_xlabel("EP step / HP step (dashed: published)")
    if title:
        axes.set_title(title, pad=22)
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=3)
    return figure
