#!/usr/bin/env python3
"""Layer time of HP and EP over k, measured against predicted: python3 analysis/k_sweep.py JUDGED.csv -o FIGURE.

JUDGED.csv is what `headway verify --grid ... --csv` writes. Drawn are the layers that differ in k alone and are
there for the most values of it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parent))
from style import use_style

LABELS = {"hp": "HP", "ep": "EP, a copy a choice", "ep_rank": "EP, a copy a rank"}


def read(file: Path) -> dict[tuple, dict[str, list[tuple[int, float, float]]]]:
    """(tokens, width, experts, expert width, skew) -> kind -> (k, predicted ms, measured ms)."""
    groups: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["phase"] == "layer":
                key = tuple(row[c] for c in ("tokens", "hidden", "experts", "expert_width", "zipf"))
                times = (float(row["predicted_us"]) / 1e3, float(row["measured_us"]) / 1e3)
                groups[key][row["kind"]].append((int(row["top_k"]), *times))
    return groups


def draw(file: Path, out: Path) -> None:
    groups = read(file)
    key = max(groups, key=lambda g: sum(len(points) for points in groups[g].values()))
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for kind, label in LABELS.items():
        points = sorted(groups[key].get(kind, []))
        if points:
            line = axes.plot(
                [p[0] for p in points], [p[1] for p in points], label=f"{label}, predicted"
            )[0]
            axes.plot(
                [p[0] for p in points],
                [p[2] for p in points],
                "o",
                color=line.get_color(),
                label=f"{label}, measured",
            )
    tokens, hidden, experts, width, _ = key
    axes.set(
        xlabel="experts per token, k",
        ylabel="layer time, forward and backward (ms)",
        ylim=(0, None),
    )
    axes.set_title(f"T = {tokens} a rank, d = {hidden}, E = {experts}, f = {width}")
    axes.legend()
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("judged", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    use_style()
    draw(arguments.judged, arguments.out)


if __name__ == "__main__":
    main()
