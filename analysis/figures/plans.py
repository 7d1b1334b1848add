"""Figures of a prediction: the plans of a scenario beside each other."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results import Prediction
from style import LINKS, PHASES, legend_below
from units import byte_unit, significant, time_unit

SMALL = 0.01  # parts below this share of every bar they are in are drawn together as "others"


def _single(results) -> Prediction | None:
    if len(results) == 1 and isinstance(results[0], Prediction) and results[0].plans:
        return results[0]
    return None


def _axes(num_bars: int):
    """Horizontal bars, the first plan on top."""
    figure, axes = plt.subplots(figsize=(7.0, 1.1 + 0.42 * num_bars))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _label_plans(axes, plans) -> None:
    axes.set_yticks(range(len(plans)), [plan["name"] for plan in plans])
    axes.set_ylim(len(plans) - 0.5, -0.5)


def _stack(axes, row: int, parts: dict[str, float], looks: dict) -> float:
    """Draws one stacked bar and returns its length."""
    left = 0.0
    for name, width in parts.items():
        colour, hatch = looks[name]
        axes.barh(
            row,
            width,
            left=left,
            height=0.66,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
        )
        left += width
    return left


def _handles(names, looks) -> list[Patch]:
    return [
        Patch(facecolor=looks[name][0], hatch=looks[name][1], edgecolor="white", label=name)
        for name in names
    ]


def _phase_times(plan: dict) -> dict[str, float]:
    """Seconds by phase, passes together."""
    times: dict[str, float] = {}
    for cost in plan["phases"]:
        times[cost["phase"]] = times.get(cost["phase"], 0.0) + cost["time_s"]
    return times


def _phase_bars(plans: list[dict]) -> list[dict[str, float]]:
    """The bars in order of the step; phases that are small in every plan are "others".

    Small beside the plan's own step: a short bar shows its own phases beside a long one.
    """
    bars = [_phase_times(plan) for plan in plans]
    shown = [
        name
        for name in PHASES
        if any(bar.get(name, 0.0) >= SMALL * sum(bar.values()) > 0 for bar in bars)
    ]
    return [
        {name: bar[name] for name in shown if name in bar}
        | {"others": sum(time for name, time in bar.items() if name not in shown)}
        for bar in bars
    ]


def phases(results, title: str | None):
    """Where the step goes: exposed time by phase, forward, backward and update together."""
    prediction = _single(results)
    if prediction is None:
        return None
    plans = prediction.plans
    longest = max(plan["step_time_interval_s"][1] for plan in plans)
    factor, unit = time_unit(longest)
    figure, axes = _axes(len(plans))
    used: list[str] = []
    bars = _phase_bars(plans)
    for row, (plan, parts) in enumerate(zip(plans, bars, strict=True)):
        used += [name for name in parts if name not in used]
        _stack(axes, row, {name: factor * time for name, time in parts.items()}, PHASES)
        step = factor * plan["step_time_s"]
        low, high = (factor * bound for bound in plan["step_time_interval_s"])
        axes.errorbar(
            step,
            row,
            xerr=[[max(step - low, 0)], [max(high - step, 0)]],
            color="black",
            capsize=2.5,
            linewidth=1,
        )
        speedup = plan["speedup_vs_baseline"]
        mark = "" if plan["feasible"] else ", does not fit"
        axes.annotate(
            f"{significant(step)} {unit} ({speedup:.2f}x{mark})",
            (max(high, step), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    _label_plans(axes, plans)
    axes.set_xlim(0, 1.28 * factor * longest)
    axes.set_xlabel(f"time of one training step [{unit}], with its interval")
    axes.set_title(title or f"{prediction.scenario}: where the step goes")
    order = [name for name in PHASES if name in used]
    legend_below(figure, _handles(order, PHASES))
    return figure


def _memory_looks(names: list[str]) -> dict:
    """Parameters, gradients, optimizer in blues and greens; activations in warm tints."""
    fixed = {
        "parameters": "#0072B2",
        "gradients": "#56B4E9",
        "optimizer": "#009E73",
        "activations": "#E69F00",
        "communication": "#D55E00",
        "workspace": "#CC79A7",
        "recomputed": "#F0E442",
        "logits": "#8C510A",
        "pipeline": "#B2182B",
    }
    hatches = ["", "///", "...", "xxx", "\\\\\\", "---", "ooo", "+++"]
    looks, seen = {}, {}
    for name in names:
        group = re.split(r"[^a-z]", name)[0]  # "activations" of "activations: MoE"
        colour = fixed.get(group, "#999999")
        looks[name] = (colour, hatches[seen.get(colour, 0) % len(hatches)])
        seen[colour] = seen.get(colour, 0) + 1
    return {**looks, "others": ("#DDDDDD", "")}


def memory(results, title: str | None):
    """Memory of the busiest rank by item, against what the GPU has."""
    prediction = _single(results)
    if prediction is None:
        return None
    plans = prediction.plans
    largest = max(plan["memory"]["peak_bytes"] for plan in plans)
    factor, unit = byte_unit(largest)
    figure, axes = _axes(len(plans))
    names: list[str] = []
    bars = []
    for plan in plans:
        items = plan["memory"]["items"]
        shown = {name: size for name, size in items.items() if size >= SMALL * largest}
        rest = sum(items.values()) - sum(shown.values())
        bars.append({**shown, "others": rest} if rest > 0 else shown)
        names += [name for name in bars[-1] if name not in names]
    names = [name for name in names if name != "others"] + ["others"] * ("others" in names)
    looks = _memory_looks(names)
    for row, (plan, bar) in enumerate(zip(plans, bars, strict=True)):
        _stack(axes, row, {name: factor * size for name, size in bar.items()}, looks)
        peak = factor * plan["memory"]["peak_bytes"]
        axes.annotate(
            f"{significant(peak)} {unit}",
            (peak, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    capacity = factor * max(plan["memory"].get("capacity_bytes", 0) for plan in plans)
    right, line = 1.15 * factor * largest, []
    if 0 < capacity < 4 * right:
        axes.axvline(capacity, color="black", linestyle="--", linewidth=1)
        label = f"GPU memory: {significant(capacity)} {unit}"
        line = [Line2D([], [], color="black", linestyle="--", linewidth=1, label=label)]
        right = max(right, 1.03 * capacity)
    _label_plans(axes, plans)
    axes.set_xlim(0, right)
    axes.set_xlabel(f"peak memory of the busiest rank [{unit}]")
    axes.set_title(title or f"{prediction.scenario}: memory")
    legend_below(figure, _handles(names, looks) + line, columns=4)
    return figure


def _stages(plan: dict) -> list[dict]:
    """What each stage of a pipeline needs; one entry for a plan without one."""
    return plan["memory"].get("stages") or [plan["memory"]]


def memory_waterfall(results, title: str | None):
    """Memory of the plan's worst stage, item upon item, up to what the GPU has."""
    prediction = _single(results)
    if prediction is None:
        return None
    plans = prediction.plans
    largest = max(plan["memory"]["peak_bytes"] for plan in plans)
    factor, unit = byte_unit(largest)
    names = list(dict.fromkeys(name for plan in plans for name in plan["memory"]["items"]))
    looks = _memory_looks(names)
    rows = sum(len(plan["memory"]["items"]) + 1 for plan in plans)
    figure, panels = plt.subplots(
        len(plans),
        1,
        squeeze=False,
        sharex=True,
        figsize=(7.0, 0.9 + 0.24 * rows + 0.35 * len(plans)),
        height_ratios=[len(plan["memory"]["items"]) + 1 for plan in plans],
        layout="constrained",
    )
    capacity = factor * max(plan["memory"].get("capacity_bytes", 0) for plan in plans)
    right = 1.14 * factor * largest
    for axes, plan in zip(panels[:, 0], plans, strict=True):
        items = plan["memory"]["items"]
        left = 0.0
        for row, (name, size) in enumerate(items.items()):
            colour, hatch = looks[name]
            axes.barh(
                row,
                factor * size,
                left=left,
                height=0.7,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.5,
            )
            left += factor * size
            axes.annotate(
                significant(factor * size),
                (left, row),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        axes.barh(len(items), left, height=0.7, color="#555555")
        axes.annotate(
            significant(left),
            (left, len(items)),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
        axes.set_yticks(range(len(items) + 1), [*items, "peak"], fontsize=7)
        axes.set_ylim(len(items) + 0.6, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        stages = len(_stages(plan))
        where = f", stage {plan['memory']['stage']} of {stages}" if stages > 1 else ""
        axes.set_title(plan["name"] + where, loc="left", fontsize=8)
        if 0 < capacity < 4 * right:
            axes.axvline(capacity, color="black", linestyle="--", linewidth=1)
    if 0 < capacity < 4 * right:
        right = max(right, 1.03 * capacity)
    panels[0, 0].set_xlim(0, right)
    dashed = f"; dashed: GPU, {significant(capacity)} {unit}" if 0 < capacity <= right else ""
    panels[-1, 0].set_xlabel(f"memory of the busiest rank [{unit}]{dashed}")
    figure.suptitle(title or f"{prediction.scenario}: memory by item")
    return figure


def memory_stages(results, title: str | None):
    """Memory of every stage of a pipeline by item, a panel a plan."""
    prediction = _single(results)
    if prediction is None:
        return None
    plans = [plan for plan in prediction.plans if len(_stages(plan)) > 1]
    if not plans:
        return None
    largest = max(plan["memory"]["peak_bytes"] for plan in plans)
    factor, unit = byte_unit(largest)
    bars = [(plan, row, stage) for plan in plans for row, stage in enumerate(_stages(plan))]
    figure, axes = _axes(len(bars))
    names: list[str] = []
    for _, _, stage in bars:
        names += [
            name
            for name, size in stage["items"].items()
            if size >= SMALL * largest and name not in names
        ]
    looks = _memory_looks(names)
    rest = False
    for row, (_, _, stage) in enumerate(bars):
        shown = {name: factor * stage["items"].get(name, 0.0) for name in names}
        others = factor * stage["peak_bytes"] - sum(shown.values())
        rest = rest or others > 0
        _stack(axes, row, {**shown, "others": others}, looks)
    axes.set_yticks(
        range(len(bars)),
        [
            f"{plan['name']}, stage {row}{' (worst)' if row == plan['memory']['stage'] else ''}"
            for plan, row, _ in bars
        ],
    )
    axes.set_ylim(len(bars) - 0.5, -0.5)
    capacity = factor * max(plan["memory"].get("capacity_bytes", 0) for plan in plans)
    right, line = 1.05 * factor * largest, []
    if 0 < capacity < 4 * right:
        axes.axvline(capacity, color="black", linestyle="--", linewidth=1)
        label = f"GPU memory: {significant(capacity)} {unit}"
        line = [Line2D([], [], color="black", linestyle="--", linewidth=1, label=label)]
        right = max(right, 1.03 * capacity)
    axes.set_xlim(0, right)
    axes.set_xlabel(f"peak memory of a stage's busiest rank [{unit}]")
    axes.set_title(title or f"{prediction.scenario}: memory of each stage")
    legend_below(figure, _handles(names + ["others"] * rest, looks) + line, columns=3)
    return figure


def traffic(results, title: str | None):
    """Off-rank bytes that a rank sends in one MoE layer, forward, by link class."""
    prediction = _single(results)
    if prediction is None:
        return None
    plans = prediction.plans
    largest = max(plan["traffic"]["sent_bytes_per_rank_max"] for plan in plans)
    factor, unit = byte_unit(largest)
    figure, axes = _axes(len(plans))
    used: list[str] = []
    for row, plan in enumerate(plans):
        links = plan["traffic"]["by_link"]
        used += [name for name in links if name not in used]
        mean = _stack(axes, row, {name: factor * size for name, size in links.items()}, LINKS)
        busiest = factor * plan["traffic"]["sent_bytes_per_rank_max"]
        axes.plot([busiest, busiest], [row - 0.4, row + 0.4], color="black", linewidth=1.4)
        axes.annotate(
            f"{significant(busiest)} {unit}",
            (max(busiest, mean), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    _label_plans(axes, plans)
    axes.set_xlim(0, (1.18 * factor * largest) or 1.0)
    axes.set_xlabel(f"sent by a rank in one MoE layer, forward [{unit}]; line: busiest rank")
    axes.set_title(title or f"{prediction.scenario}: traffic by link class")
    legend_below(figure, _handles([name for name in LINKS if name in used], LINKS))
    return figure
