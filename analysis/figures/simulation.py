"""Figures of a simulated step: what ranks do when, how links are used, when ranks finish."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from results import Simulation, Timeline
from style import PHASES, SOURCES, legend_below
from units import significant, time_unit

MAX_GANTT_RANKS = 8  # of a timeline with more, so many evenly spread; --ranks chooses
TRACKS = ("compute", "communication", "gradient")
COMMUNICATION = {
    "head_scatter",
    "count_exchange",
    "dispatch",
    "etp_all_gather",
    "etp_reduce_scatter",
    "combine",
    "head_gather",
    "tp_all_gather",
    "tp_reduce_scatter",
    "tp_all_reduce",
    "cp_exchange",
    "pipeline_p2p",
}
# Beside the passes: gradients and parameters, and what goes to the host, works there and comes back.
GRADIENT = {
    "grad_all_reduce",
    "expert_grad_all_reduce",
    "param_all_gather",
    "offload",
    "host_optimizer",
    "reload",
}


def _simulation(results) -> Simulation | None:
    if len(results) == 1 and isinstance(results[0], Simulation) and results[0].feasible_plans:
        return results[0]
    return None


def _track(phase: str) -> int:
    return 2 if phase in GRADIENT else int(phase in COMMUNICATION)


def gantt(results, title: str | None):
    """Spans of some ranks over time: a row a rank, in it a lane a stream."""
    if len(results) != 1 or not isinstance(results[0], Timeline):
        return None
    timeline = results[0]
    ranks = sorted({span["rank"] for span in timeline.spans})
    if not ranks:
        return None
    if len(ranks) > MAX_GANTT_RANKS:
        step = (len(ranks) - 1) / (MAX_GANTT_RANKS - 1)
        ranks = [ranks[round(i * step)] for i in range(MAX_GANTT_RANKS)]
    spans = [span for span in timeline.spans if span["rank"] in ranks]
    start = min(span["begin_s"] for span in spans)
    length = max(span["begin_s"] + span["duration_s"] for span in spans) - start
    factor, unit = time_unit(length)
    figure, axes = plt.subplots(figsize=(9.0, 1.2 + 0.55 * len(ranks)))
    used = {}
    for span in spans:
        colour, hatch = used.setdefault(span["phase"], PHASES[span["phase"]])
        axes.barh(
            ranks.index(span["rank"]) + 0.27 * (_track(span["phase"]) - 1),
            factor * span["duration_s"],
            left=factor * (span["begin_s"] - start),
            height=0.25,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.2,
        )
    axes.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    axes.set_xlim(0, factor * length)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"time [{unit}]; lanes of a rank: {', '.join(TRACKS)}")
    axes.set_title(title or f"{timeline.scenario}, plan {timeline.plan}: {timeline.source} step")
    legend_below(
        figure,
        [
            Patch(facecolor=used[name][0], hatch=used[name][1], edgecolor="white", label=name)
            for name in PHASES
            if name in used
        ],
    )
    return figure


def _kind_and_number(link: str) -> tuple:
    kind, _, index = link.partition(":")
    return kind, [int(part) for part in index.split(".")]


def link_heat_map(results, title: str | None):
    """How much of its bandwidth each of the busiest links uses over time (simulate --link-bins)."""
    result = _simulation(results)
    if result is None:
        return None
    plans = [plan for plan in result.feasible_plans if "link_use" in plan]
    if not plans:
        return None
    counts = [len(plan["link_use"]["links"]) for plan in plans]
    figure, grid = plt.subplots(
        len(plans),
        1,
        squeeze=False,
        figsize=(9.0, 0.8 + sum(0.8 + 0.05 * count for count in counts)),
        gridspec_kw={"height_ratios": [16 + count for count in counts]},
        layout="constrained",
    )
    for axes, plan in zip(grid[:, 0], plans, strict=True):
        names = sorted(plan["link_use"]["links"], key=_kind_and_number)
        factor, unit = time_unit(plan["step_time_s"])
        image = axes.imshow(
            [plan["link_use"]["links"][name] for name in names],
            aspect="auto",
            interpolation="nearest",
            cmap="viridis",
            vmin=0.0,
            vmax=1.0,
            extent=(0, factor * plan["step_time_s"], len(names) - 0.5, -0.5),
        )
        every = max(1, len(names) // 24)
        axes.set_yticks(range(0, len(names), every), names[::every], fontsize=6)
        axes.grid(visible=False)
        axes.set_xlabel(f"time [{unit}]")
        axes.set_title(f"plan {plan['name']}")
    figure.colorbar(
        image, ax=grid[:, 0].tolist(), aspect=40, label="used fraction of the link's bandwidth"
    )
    figure.suptitle(title or f"{result.scenario}: use of the busiest links")
    return figure


def _finish(times: list[float]) -> str:
    spread = max(times) - min(times)
    if spread == 0.0:
        return "all finish together"
    factor, unit = time_unit(spread)
    return f"the last one finishes {significant(factor * spread)} {unit} after the first"


def finish_times(results, title: str | None):
    """How long each rank computes and when it ends its step; stragglers stand out."""
    result = _simulation(results)
    if result is None:
        return None
    plans = result.feasible_plans
    figure, grid = plt.subplots(
        len(plans), 1, squeeze=False, sharex=True, figsize=(7.5, 0.9 + 1.6 * len(plans))
    )
    waiting = "#DDDDDD"
    for axes, plan in zip(grid[:, 0], plans, strict=True):
        finish, computing = plan["rank_finish_s"], plan["rank_compute_s"]
        factor, unit = time_unit(max(finish))
        ranks = range(len(finish))
        axes.bar(ranks, [factor * t for t in finish], width=1.0, color=waiting)
        axes.bar(ranks, [factor * t for t in computing], width=1.0, color=SOURCES["simulated"])
        axes.set_xlim(-0.5, len(finish) - 0.5)
        axes.set_ylabel(f"time [{unit}]")
        axes.set_title(
            f"plan {plan['name']}: ranks compute {significant(factor * min(computing))} to "
            f"{significant(factor * max(computing))} {unit}; {_finish(finish)}"
        )
    grid[-1, 0].set_xlabel("rank")
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title or f"{result.scenario}: ranks of a simulated step")
    figure.tight_layout()
    legend_below(
        figure,
        [
            Patch(color=SOURCES["simulated"], label="computing"),
            Patch(color=waiting, label="communicating or waiting, until it finishes"),
        ],
        columns=2,
    )
    return figure


def predicted_and_simulated(results, title: str | None):
    """Step time of each plan from the formulas and from the simulation, with the difference."""
    result = _simulation(results)
    if result is None:
        return None
    plans = [plan for plan in result.feasible_plans if "predicted_step_time_s" in plan]
    if not plans:
        return None
    longest = max(max(plan["predicted_step_time_s"], plan["step_time_s"]) for plan in plans)
    factor, unit = time_unit(longest)
    figure, axes = plt.subplots(figsize=(7.0, 1.2 + 0.6 * len(plans)))
    for row, plan in enumerate(plans):
        predicted, simulated = plan["predicted_step_time_s"], plan["step_time_s"]
        for offset, value, source in (
            (-0.18, predicted, "predicted"),
            (0.18, simulated, "simulated"),
        ):
            axes.barh(row + offset, factor * value, height=0.32, color=SOURCES[source])
            axes.annotate(
                significant(factor * value),
                (factor * value, row + offset),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        axes.annotate(
            f"{100 * (simulated / predicted - 1):+.1f} %",
            (factor * max(predicted, simulated), row),
            xytext=(36, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(plans)), [plan["name"] for plan in plans])
    axes.set_ylim(len(plans) - 0.5, -0.5)
    axes.set_xlim(0, 1.2 * factor * longest)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"time of a step [{unit}]; + : the simulation takes longer")
    axes.set_title(title or f"{result.scenario}: predicted and simulated")
    legend_below(
        figure, [Patch(color=SOURCES[s], label=s) for s in ("predicted", "simulated")], columns=2
    )
    return figure
