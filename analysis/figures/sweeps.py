"""Figures of sweeps: plans along one axis, and a map over two."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt

from figures.axes import (
    LINES,
    is_hp,
    is_numeric,
    label,
    layers,
    looks,
    plans,
    quantity,
    scale_x,
    series,
    values,
    varied,
)
from results import Sweep
from style import legend_below
from units import byte_unit, significant, time_unit


def _one_axis(results) -> tuple[Sweep, str] | None:
    if len(results) != 1 or not isinstance(results[0], Sweep):
        return None
    axes = varied(results[0])
    if len(axes) != 1 or not is_numeric(results[0], axes[0]):
        return None
    return results[0], axes[0]


def _skip(xs: list[float]) -> int:
    return 1 if len(xs) <= 9 else 2


def _plot_step(axes, sweep: Sweep, axis: str, look: dict) -> None:
    longest = max(float(row["step_high_s"] or 0) for row in sweep.rows)
    factor, unit = time_unit(longest)
    for plan in plans(sweep):
        xs, steps = series(sweep, axis, plan, "step_time_s")
        low, high = (series(sweep, axis, plan, f"step_{end}_s")[1] for end in ("low", "high"))
        axes.plot(xs, [factor * step for step in steps], label=plan, **look[plan])
        axes.fill_between(
            xs,
            [factor * value for value in low],
            [factor * value for value in high],
            color=look[plan]["color"],
            alpha=0.12,
            linewidth=0,
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"training step [{unit}], with its interval")


def _baseline(sweep: Sweep) -> str:
    """The plan whose speedup over itself is 1 at every point; no other is."""
    names = [
        plan
        for plan in plans(sweep)
        if all(float(r["speedup_vs_baseline"] or 1) == 1 for r in sweep.rows if r["plan"] == plan)
    ]
    return names[0] if len(names) == 1 else "the baseline"


def _plot_speedup(axes, sweep: Sweep, axis: str, look: dict) -> None:
    for plan in plans(sweep):
        xs, speedups = series(sweep, axis, plan, "speedup_vs_baseline")
        axes.plot(xs, speedups, label=plan, **look[plan])
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    axes.set_ylabel(f"speedup over {_baseline(sweep)}")


def step(results, title: str | None):
    """Step time with its interval, and speedup, of every plan along one axis."""
    found = _one_axis(results)
    if found is None or not any(row["step_time_s"] for row in found[0].rows):
        return None
    sweep, axis = found
    look = looks(layers(sweep))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.2))
    _plot_step(left, sweep, axis, look)
    _plot_speedup(right, sweep, axis, look)
    xs = values(sweep, axis)
    for axes in (left, right):
        scale_x(axes, xs, _skip(xs))
    figure.supxlabel(label(sweep, axis), fontsize=9)
    figure.suptitle(
        title or f"{sweep.scenario}: step time and speedup", fontsize=10, x=0.02, ha="left"
    )
    legend_below(figure, left.get_legend_handles_labels()[0], columns=4)
    return figure


def traffic(results, title: str | None):
    """Bytes that the busiest rank sends in one MoE layer, along one axis."""
    found = _one_axis(results)
    if found is None:
        return None
    sweep, axis = found
    look = looks(layers(sweep))
    factor, unit = byte_unit(max(float(row["sent_bytes_max"] or 0) for row in sweep.rows))
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    for plan in plans(sweep):
        xs, sent = series(sweep, axis, plan, "sent_bytes_max")
        axes.plot(xs, [factor * size for size in sent], label=plan, **look[plan])
    xs = values(sweep, axis)
    scale_x(axes, xs, _skip(xs))
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label(sweep, axis))
    axes.set_ylabel(f"sent in one MoE layer, forward [{unit}]")
    axes.set_title(title or f"{sweep.scenario}: bytes of the busiest rank")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=4)
    return figure


def scaling(results, title: str | None):
    """Tokens per second of the whole job along an axis of nodes, against linear scaling."""
    found = _one_axis(results)
    if found is None or not found[1].endswith(("nodes", "ranks")):
        return None
    sweep, axis = found
    look = looks(layers(sweep))
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    best = 0.0
    for plan in plans(sweep):
        xs, rates = series(sweep, axis, plan, "tokens_per_s_per_gpu")
        axes.plot(xs, [rate / 1e3 for rate in rates], label=plan, **look[plan])
        best = max(best, max(rates, default=0.0) / 1e3)
    xs = values(sweep, axis)
    scale_x(axes, xs)
    axes.set_ylim(0, 1.05 * best)
    axes.set_xlabel(label(sweep, axis))
    axes.set_ylabel("1000 tokens/s per GPU")
    axes.set_title(title or f"{sweep.scenario}: scaling")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=4)
    return figure


def _percentile(sorted_values: list[float], share: float) -> float:
    """Linear between the order statistics."""
    at = share * (len(sorted_values) - 1)
    low = int(at)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (at - low) * (sorted_values[high] - sorted_values[low])


def memory_skew(results, title: str | None):
    """p50 and p99 over draws (axis routing.seed) of the busiest rank's memory, against skew."""
    if len(results) != 1 or not isinstance(results[0], Sweep):
        return None
    sweep = results[0]
    if sorted(varied(sweep)) != ["routing.seed", "routing.skew"]:
        return None
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    look = looks(layers(sweep))
    for plan in plans(sweep):
        draws: dict[float, list[float]] = {}
        for row in sweep.rows:
            if row["plan"] == plan and row["memory_peak_bytes"]:
                peaks = draws.setdefault(float(row["routing.skew"]), [])
                peaks.append(float(row["memory_peak_bytes"]) / 2**30)
        xs = sorted(draws)
        ordered = [sorted(draws[x]) for x in xs]
        middle, high = ([_percentile(peaks, share) for peaks in ordered] for share in (0.5, 0.99))
        axes.plot(xs, middle, label=f"{plan}, p50", **look[plan])
        axes.plot(xs, high, linewidth=0.9, color=look[plan]["color"])
        axes.fill_between(xs, middle, high, color=look[plan]["color"], alpha=0.15, linewidth=0)
    capacity = min(float(row["memory_capacity_bytes"] or "inf") for row in sweep.rows) / 2**30
    axes.axhline(capacity, color="black", linestyle="--", linewidth=1, label="memory of the GPU")
    axes.set_ylim(0, 1.15 * capacity)
    axes.set_xlabel(label(sweep, "routing.skew"))
    axes.set_ylabel("busiest rank [GiB], p50 to p99")
    axes.set_title(title or f"{sweep.scenario}: memory under router skew")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=3)
    return figure


def _map(sweep: Sweep, x_axis: str, y_axis: str) -> tuple[list[float], list[float], list[list]]:
    """Best EP step over best HP step at each point; None where either is missing."""
    xs, ys = values(sweep, x_axis), values(sweep, y_axis)
    best: dict[tuple, dict[bool, float]] = {}
    for row in sweep.rows:
        if row["step_time_s"] == "":
            continue
        key = (quantity(row[x_axis])[0], quantity(row[y_axis])[0])
        times = best.setdefault(key, {})
        hp, time = is_hp(row), float(row["step_time_s"])
        times[hp] = min(time, times.get(hp, time))
    xs, ys = sorted(xs), sorted(ys)
    cells = [
        [
            best[x, y][False] / best[x, y][True] if len(best.get((x, y), {})) == 2 else None
            for x in xs
        ]
        for y in ys
    ]
    return xs, ys, cells


def break_even(results, title: str | None):
    """Speedup of the best HP plan over the best EP plan over two axes; the line is break-even."""
    if len(results) != 1 or not isinstance(results[0], Sweep):
        return None
    sweep = results[0]
    axes_of = varied(sweep)
    if len(axes_of) != 2 or not all(is_numeric(sweep, axis) for axis in axes_of):
        return None
    if {is_hp(row) for row in sweep.rows} != {True, False}:
        return None
    xs, ys, cells = _map(sweep, *axes_of)
    grid = [[math.nan if cell is None else math.log2(cell) for cell in row] for row in cells]
    known = [cell for row in grid for cell in row if not math.isnan(cell)]
    if not known:
        return None
    reach = max(abs(cell) for cell in known)
    has_line = min(known) < 0 < max(known)
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    columns, rows = list(range(len(xs))), list(range(len(ys)))
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="PuOr_r", vmin=-reach, vmax=reach)
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            if cell is not None:
                dark = abs(grid[row][column]) > 0.62 * reach
                axes.text(
                    column,
                    row,
                    f"{cell:.2f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if dark else "black",
                    bbox={
                        "facecolor": image.cmap(image.norm(grid[row][column])),
                        "edgecolor": "none",
                        "pad": 0.8,
                    },
                    zorder=3,
                )
    if has_line:
        axes.contour(columns, rows, grid, levels=[0.0], colors="black", linewidths=1.8)
    axes.grid(visible=False)
    axes.set_xticks(columns, [significant(x) for x in xs])
    axes.set_yticks(rows, [significant(y) for y in ys])
    axes.set_xlabel(label(sweep, axes_of[0]))
    axes.set_ylabel(label(sweep, axes_of[1]))
    bar = figure.colorbar(image, ax=axes)
    ticks = [t for t in (-3, -2, -1, 0, 1, 2, 3) if abs(t) <= reach] or [0]
    if reach < 1:
        ticks = [-reach, 0, reach]
    bar.set_ticks(ticks, labels=[f"{2.0**tick:.2g}x" for tick in ticks])
    bar.set_label("best EP step / best HP step")
    everywhere = "HP is faster at every point" if max(known) > 0 else "EP is faster at every point"
    what = "where HP overtakes (black line)" if has_line else everywhere
    axes.set_title(title or f"{sweep.scenario}: {what}")
    return figure


def _gain(sweep: Sweep, axis: str) -> tuple[list[float], list[float]]:
    """Best EP step over best HP step at each value of the axis."""
    best: dict[float, dict[bool, float]] = {}
    for row in sweep.rows:
        if row["step_time_s"] and row["status"] == "ok":
            times = best.setdefault(quantity(row[axis])[0], {})
            hp, time = is_hp(row), float(row["step_time_s"])
            times[hp] = min(time, times.get(hp, time))
    xs = sorted(x for x, times in best.items() if len(times) == 2)
    return xs, [best[x][False] / best[x][True] for x in xs]


def hp_gain(results, title: str | None):
    """Best EP plan over best HP plan along one axis, a line a sweep."""
    if len(results) < 2 or not all(isinstance(result, Sweep) for result in results):
        return None
    axis = varied(results[0])
    if len(axis) != 1 or any(varied(sweep) != axis for sweep in results):
        return None
    if not is_numeric(results[0], axis[0]):
        return None
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    for sweep, (colour, marker, line) in zip(results, LINES, strict=False):
        xs, gains = _gain(sweep, axis[0])
        axes.plot(xs, gains, color=colour, marker=marker, linestyle=line, label=sweep.scenario)
    axes.axhline(1.0, color="black", linewidth=0.8)
    scale_x(axes, values(results[0], axis[0]))
    axes.set_yscale("log", base=2)
    bottom, top = axes.get_ylim()
    ticks = (0.25, 0.35, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 3, 4, 6, 8)
    ticks = [tick for tick in ticks if bottom <= tick <= top]
    axes.set_yticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label(results[0], axis[0]))
    axes.set_ylabel("best EP step / best HP step")
    axes.set_title(title or "Above the line HP is faster than the best EP")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure
