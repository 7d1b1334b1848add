#!/usr/bin/env python3
"""Draws predicted, simulated and measured layers of the lab from the CSV of `scripts/verify_lab layers`.

usage: python3 analysis/lab_layers.py docs/results/validation_lab/layers.csv docs/figures/lab_layers.png
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import matplotlib.pyplot as plt

from style import draw_csv

PLANS = {
    "ep_naive": "EP naive",
    "ep_rank": "EP by rank",
    "ep_node": "EP by node",
    "hp": "HP",
}
LINES = {"measured": "o", "simulated": "-", "predicted": ":"}


def series(rows, axes, x_key: str):
    for number, (plan, label) in enumerate(PLANS.items()):
        own = sorted((row for row in rows if row["plan"] == plan), key=lambda r: float(r[x_key]))
        x = [float(row[x_key]) for row in own]
        for what, line in LINES.items():
            y = [float(row[f"{what}_s"]) for row in own]
            axes.plot(x, y, line, color=f"C{number}", label=label if what == "simulated" else None)
        low = [float(row["p10_s"]) for row in own]
        high = [float(row["p90_s"]) for row in own]
        axes.vlines(x, low, high, color=f"C{number}", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("forward and backward (s)")


def lab_layers(rows: list[dict[str, str]]):
    """Over k at 2:1, and over the trunks' oversubscription at k = 4."""
    figure, (over_k, over_trunks) = plt.subplots(1, 2, figsize=(10, 4))
    series([row for row in rows if row["oversubscription"] == "2"], over_k, "k")
    series([row for row in rows if row["k"] == "4"], over_trunks, "oversubscription")
    over_k.set_xlabel("k, two leaves, 2:1")
    over_trunks.set_xlabel("oversubscription of the trunks, k = 4")
    over_trunks.set_xticks([1, 2, 4], ["1:1", "2:1", "4:1"])
    over_k.legend(title="points measured (p10 to p90),\nlines simulated, dots predicted")
    return figure


if __name__ == "__main__":
    sys.exit(draw_csv(lab_layers, __doc__))
