#!/usr/bin/env python3
"""Draws the cost of the simulator from the CSV of bench_simulator.

usage: python3 analysis/simulator_cost.py docs/results/bench_simulator.csv docs/figures/simulator_cost.png
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import matplotlib.pyplot as plt

from style import draw_csv


def simulator_cost(rows: list[dict[str, str]]):
    """CPU time against ranks, distinct completion instants, and layers of a step."""
    figure, (by_ranks, by_instants, by_layers) = plt.subplots(1, 3, figsize=(11, 3.6))
    exchanges = [row for row in rows if row["case"].startswith("alltoall")]
    for axes, x_key in ((by_ranks, "ranks"), (by_instants, "instants")):
        for sizes in ("zipf", "rand"):
            for mode, line in (("exact", "-"), ("epsilon 0.001", "--")):
                series = [
                    row
                    for row in exchanges
                    if f"alltoall star {sizes} " in row["case"] and row["case"].endswith(mode)
                ]
                axes.plot(
                    [int(row[x_key]) for row in series],
                    [float(row["cpu_median_s"]) for row in series],
                    line,
                    marker="o",
                    label=f"{sizes}, {mode}",
                )
        axes.set_xscale("log", base=2 if x_key == "ranks" else 10)
        axes.set_yscale("log")
        axes.set_ylabel("CPU time (s)")
    by_ranks.set_xlabel("ranks of one all-to-all (star)")
    by_instants.set_xlabel("distinct completion instants")
    by_ranks.legend()
    for ranks in (64, 128, 256):
        steps = [
            row
            for row in rows
            if row["case"].startswith("step skewed")
            and row["case"].endswith("epsilon 0.01")
            and int(row["ranks"]) == ranks
        ]
        by_layers.plot(
            [int(row["layers"]) for row in steps],
            [float(row["cpu_median_s"]) for row in steps],
            marker="o",
            label=f"{ranks} ranks",
        )
    by_layers.set_xlabel("layers of a skewed step, epsilon 0.01")
    by_layers.set_ylabel("CPU time (s)")
    by_layers.set_xlim(left=0)
    by_layers.set_ylim(bottom=0)
    by_layers.legend()
    return figure


if __name__ == "__main__":
    sys.exit(draw_csv(simulator_cost, __doc__))
