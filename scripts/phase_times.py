#!/usr/bin/env python3
"""Passes and phases of a measured Timeline CSV, slowest rank of each phase, in microseconds. usage: phase_times.py FILE LABEL"""

import csv
import sys


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    slowest: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = (row["plan"], row["pass"], row["phase"])
        slowest[key] = max(slowest.get(key, 0.0), 1e6 * float(row["duration_s"]))
    for plan in dict.fromkeys(plan for plan, _, _ in slowest):
        own = {(which, phase): t for (name, which, phase), t in slowest.items() if name == plan}
        for name in dict.fromkeys(which for which, _ in own):
            phases = {phase: time for (which, phase), time in own.items() if which == name}
            parts = " ".join(f"{phase} {time:.0f}" for phase, time in phases.items())
            print(f"{sys.argv[2]:<9} {plan:<9} {name:<8} {sum(phases.values()):6.0f} = {parts}")


if __name__ == "__main__":
    main()
