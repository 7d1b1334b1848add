"""Load of the ranks: expert work of each rank in a simulated or measured step."""

from __future__ import annotations

from collections import defaultdict

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from figures.axes import looks
from results import Timeline
from style import legend_below


def _expert_time(timeline: Timeline) -> list[float]:
    """Seconds in `expert`, all layers and passes, by rank."""
    times: dict[int, float] = defaultdict(float)
    for span in timeline.spans:
        if span["phase"] == "expert" and span["rank"] >= 0:
            times[span["rank"]] += span["count"] * span["duration_s"]
    return [times[rank] for rank in sorted(times)]


def load(results, title: str | None):
    """Expert time of every rank over the mean rank's, busiest first, a line a plan."""
    timelines = [result for result in results if isinstance(result, Timeline)]
    if not timelines or len(timelines) != len(results):
        return None
    loads = {t.plan: _expert_time(t) for t in timelines if t.source != "predicted"}
    loads = {plan: times for plan, times in loads.items() if len(times) > 1 and sum(times) > 0}
    if not loads:
        return None
    look = looks({t.plan: t.layer for t in timelines if t.plan in loads})
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    for plan, times in loads.items():
        mean = sum(times) / len(times)
        ordered = sorted((time / mean for time in times), reverse=True)
        axes.plot(
            range(1, len(ordered) + 1),
            ordered,
            label=f"{plan}: busiest {ordered[0]:.2f}",
            color=look[plan]["color"],
            linestyle=look[plan]["linestyle"],
            marker=look[plan]["marker"],
            markersize=3,
        )
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("ranks, busiest first")
    axes.set_ylabel("expert time over the mean rank's")
    axes.set_title(title or f"{timelines[0].scenario}: load of the ranks")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=3)
    return figure
