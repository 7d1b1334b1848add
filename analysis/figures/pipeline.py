"""The order of a pipelined step: what each pipeline rank runs when."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from results import Timeline
from style import legend_below
from units import significant, time_unit

CHUNKS = ("pipeline_stage", "pipeline_weight")
FORWARD, BACKWARD, WEIGHT, MESSAGE, BUBBLE = "#4393C3", "#F4A582", "#5AAE61", "#B2182B", "#F2F2F2"
LABELLED = 400  # with more chunks than this, their micro-batches are not written into them


def _colour(span: dict) -> str:
    if span["phase"] == "pipeline_weight":
        return WEIGHT
    if span["phase"] == "pipeline_p2p":
        return MESSAGE
    return FORWARD if span["pass"] == "forward" else BACKWARD


def _shade(colour: str, depth: float) -> tuple[float, float, float]:
    """Later chunks of a rank are lighter: depth 0 is the colour itself, 1 would be white."""
    return tuple(channel + (1 - channel) * depth for channel in to_rgb(colour))


def order(results, title: str | None):
    """Rank against time; a pair of a forward and a backward shares its bar."""
    if len(results) != 1 or not isinstance(results[0], Timeline):
        return None
    timeline = results[0]
    spans = [s for s in timeline.spans if s["rank"] >= 0 and s["phase"].startswith("pipeline_")]
    chunks = [span for span in spans if span["phase"] in CHUNKS]
    if not chunks:
        return None
    ranks = sorted({span["rank"] for span in chunks})
    end = max(span["begin_s"] + span["duration_s"] for span in spans)
    factor, unit = time_unit(end)
    layers = {rank: sorted({s["layer"] for s in chunks if s["rank"] == rank}) for rank in ranks}
    together: dict[tuple, int] = {}
    for span in chunks:
        key = (span["rank"], span["begin_s"])
        together[key] = together.get(key, 0) + 1
    figure, axes = plt.subplots(figsize=(11.0, 1.4 + 0.42 * len(ranks)))
    axes.set_facecolor(BUBBLE)
    for span in spans:
        if span["phase"] == "pipeline_bubble" or span["duration_s"] == 0:
            continue
        row, height, depth = ranks.index(span["rank"]), 0.84, 0.0
        if span["phase"] in CHUNKS:
            own = layers[span["rank"]]
            depth = 0.55 * own.index(span["layer"]) / len(own)
            if together[span["rank"], span["begin_s"]] > 1:
                height = 0.42
                row += -0.21 if span["pass"] == "forward" else 0.21
        axes.barh(
            row,
            factor * span["duration_s"],
            left=factor * span["begin_s"],
            height=height,
            color=_shade(_colour(span), depth),
            edgecolor="white",
            linewidth=0.3 if len(chunks) <= 4 * LABELLED else 0.0,
        )
        if span["phase"] in CHUNKS and len(chunks) <= LABELLED:
            axes.text(
                factor * (span["begin_s"] + span["duration_s"] / 2),
                row,
                str(span["micro_batch"]),
                ha="center",
                va="center",
                fontsize=5,
                clip_on=True,
            )
    axes.set_yticks(range(len(ranks)), [f"pipeline rank {rank}" for rank in ranks])
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    axes.set_xlim(0, factor * end)
    axes.grid(visible=False)
    axes.set_xlabel(f"time [{unit}], without the update")
    idle = sum(span["duration_s"] for span in spans if span["phase"] == "pipeline_bubble")
    axes.set_title(
        title
        or f"{timeline.scenario}, plan {timeline.plan}: {timeline.source} order, "
        f"{significant(100 * idle / (end * len(ranks)))} % of the ranks' time is bubble"
    )
    patches = [("forward", FORWARD), ("backward", BACKWARD)]
    if any(span["phase"] == "pipeline_weight" for span in chunks):
        patches.append(("weight gradients", WEIGHT))
    if any(span["phase"] == "pipeline_p2p" for span in spans):
        patches.append(("waiting for a message", MESSAGE))
    patches.append(("bubble", BUBBLE))
    note = "; later chunks lighter" if max(len(own) for own in layers.values()) > 1 else ""
    handles = [Patch(facecolor=c, edgecolor="grey", label=name) for name, c in patches]
    handles[0].set_label("forward" + note)
    legend_below(figure, handles)
    return figure
