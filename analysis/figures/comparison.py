"""Figures of Timelines: phases of one, or one producer against another."""

from __future__ import annotations

from collections import defaultdict

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from figures.pipeline import CHUNKS
from results import Timeline
from style import PHASES, SOURCES, legend_below
from units import significant, time_unit


def executions(timeline: Timeline) -> dict[tuple[str, str], dict[str, float]]:
    """Mean time, low and high of one execution of each (pass, phase) on the slowest rank.

    The join of `headway verify`: an execution is a (layer, micro-batch); `count` equal layers of a
    prediction weigh as many.
    """
    slowest: dict[tuple, dict] = {}
    for span in timeline.spans:
        if span["phase"] in CHUNKS:  # the sum of other phases
            continue
        key = (span["pass"], span["phase"], span["layer"], span["micro_batch"])
        if key not in slowest or slowest[key]["duration_s"] < span["duration_s"]:
            slowest[key] = span
    sums: dict[tuple[str, str], dict[str, float]] = defaultdict(
        lambda: {"time": 0.0, "low": 0.0, "high": 0.0, "count": 0.0}
    )
    for (name_of_pass, phase, _, _), span in slowest.items():
        entry = sums[name_of_pass, phase]
        entry["count"] += span["count"]
        for target, column in (("time", "duration_s"), ("low", "low_s"), ("high", "high_s")):
            entry[target] += span["count"] * span[column]
    return {
        key: {part: value / entry["count"] for part, value in entry.items() if part != "count"}
        | {"count": entry["count"]}
        for key, entry in sums.items()
    }


def _pairs(results) -> list[tuple[Timeline, Timeline]]:
    """A producer and its reference for every plan: measured if there is one, else simulated."""
    timelines = [result for result in results if isinstance(result, Timeline)]
    if len(timelines) != len(results):
        return []
    for reference_source in ("measured", "simulated"):
        pairs = {}
        for reference in (t for t in timelines if t.source == reference_source):
            for other in timelines:
                if other.plan == reference.plan and other.source != reference.source:
                    pairs.setdefault(reference.plan, (other, reference))
        if pairs:
            return list(pairs.values())
    return []


def _draw_bars(axes, timeline: Timeline, values: list[dict], factor: float, offset: float) -> None:
    for row, value in enumerate(values):
        time = factor * value["time"]
        axes.barh(row + offset, time, height=0.3, color=SOURCES[timeline.source])
        if value["high"] > 0:
            below = max(time - factor * value["low"], 0)
            above = max(factor * value["high"] - time, 0)
            axes.errorbar(
                time,
                row + offset,
                xerr=[[below], [above]],
                color="black",
                capsize=2,
                linewidth=0.8,
            )


def _draw_plan(axes, keys, ours: dict, theirs: dict, pair, factor: float) -> None:
    for values, timeline, offset in ((ours, pair[0], -0.17), (theirs, pair[1], 0.17)):
        _draw_bars(axes, timeline, [values[key] for key in keys], factor, offset)
    for row, key in enumerate(keys):
        error = ours[key]["time"] / theirs[key]["time"] - 1 if theirs[key]["time"] else 0.0
        end = factor * max(ours[key]["high"], theirs[key]["high"], ours[key]["time"])
        axes.annotate(
            f"{100 * error:+.1f} %",
            (end, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(keys)), [f"{phase} {name_of_pass}" for name_of_pass, phase in keys])
    axes.set_ylim(len(keys) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def by_phase(results, title: str | None):
    """Each phase predicted and measured, with intervals and the signed error: a panel a plan."""
    panels = []
    for pair in _pairs(results):
        ours, theirs = (executions(timeline) for timeline in pair)
        keys = [key for key in theirs if key in ours]
        if keys:
            panels.append((keys, ours, theirs, pair))
    if not panels:
        return None
    longest = max(
        max(ours[key]["high"], theirs[key]["high"])
        for keys, ours, theirs, _ in panels
        for key in keys
    )
    factor, unit = time_unit(longest)
    heights = [len(keys) for keys, *_ in panels]
    figure, grid = plt.subplots(
        len(panels),
        1,
        squeeze=False,
        sharex=True,
        figsize=(7.0, 0.6 + sum(0.6 + 0.3 * height for height in heights)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axes, (keys, ours, theirs, pair) in zip(grid[:, 0], panels, strict=True):
        _draw_plan(axes, keys, ours, theirs, pair, factor)
        axes.set_title(f"plan {pair[1].plan}")
    sources = panels[0][3]
    grid[-1, 0].set_xlim(0, 1.15 * factor * longest)
    grid[-1, 0].set_xlabel(
        f"time of one execution, slowest rank [{unit}]; error: {sources[0].source} too long is +"
    )
    figure.suptitle(
        title or f"{sources[1].scenario}: {sources[0].source} and {sources[1].source}", fontsize=10
    )
    legend_below(
        figure,
        [Line2D([], [], color=SOURCES[t.source], linewidth=6, label=t.source) for t in sources],
    )
    return figure


def phases(results, title: str | None):
    """Time by phase of every plan and producer in Timeline CSVs: a dot a plan, on a log scale."""
    timelines = [result for result in results if isinstance(result, Timeline)]
    if not timelines or len(timelines) != len(results):
        return None
    tables = [executions(timeline) for timeline in timelines]
    present = {phase for table in tables for _, phase in table}
    names = [phase for phase in PHASES if phase in present]
    totals = [
        {
            name: sum(v["time"] * v["count"] for (_, phase), v in table.items() if phase == name)
            for name in names
        }
        for table in tables
    ]
    factor, unit = time_unit(max(max(total.values()) for total in totals))
    figure, axes = plt.subplots(figsize=(7.0, 1.2 + 0.24 * len(names)))
    markers = "osD^v<>P*X"
    for index, (timeline, total) in enumerate(zip(timelines, totals, strict=True)):
        rows = [row for row, name in enumerate(names) if total[name] > 0]
        axes.plot(
            [factor * total[names[row]] for row in rows],
            rows,
            linestyle="",
            marker=markers[index % len(markers)],
            label=f"{timeline.plan} ({timeline.source})",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: significant(value))
    # More labels where there is room for them: 1, 2 and 5 of up to two decades.
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"time in all layers, all passes [{unit}]")
    axes.set_title(title or f"{timelines[0].scenario}: time by phase")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=4)
    return figure
