#!/usr/bin/env python3
"""Exchanges of layers in flow over bare all-to-alls of the same bytes, interpolated between measured sizes.

usage: exchange_ratios.py BARE.csv JUDGED.csv   (of scripts/bare_all_to_all.py and `headway verify --grid --csv`, two ranks)
Even exchanges only: HP's, whose bytes are known: tokens * heads * head_width * 2 of a rank in all.
"""

import csv
import statistics
import sys


def between(points: list[tuple[float, float]], size: float) -> float | None:
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 <= size <= x1:
            return y0 + (y1 - y0) * (size - x0) / (x1 - x0)
    return None


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        bare = [(float(row["bytes"]), float(row["median_us"])) for row in csv.DictReader(file)]
    ratios = []
    with open(sys.argv[2], encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["phase"] not in ("head_scatter", "head_gather"):
                continue
            size = 2.0 * int(row["tokens"]) * int(row["heads"]) * int(row["head_width"])
            time = between(bare, size)
            if time is not None:
                ratios.append((float(row["measured_us"]) / time, size))
    if ratios:
        worst = max(ratios)
        print(
            f"HP's exchanges over bare all-to-alls: {len(ratios)}, median "
            f"{statistics.median(ratio for ratio, _ in ratios):.2f}, worst {worst[0]:.2f} at "
            f"{worst[1] / 2**20:.1f} MiB, {min(size for _, size in ratios) / 2**20:.1f} to "
            f"{max(size for _, size in ratios) / 2**20:.1f} MiB"
        )


if __name__ == "__main__":
    main()
