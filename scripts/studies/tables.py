#!/usr/bin/env python3
"""The tables of docs/studies as Markdown, from the results of `headway sweep`.

usage: python3 scripts/studies/tables.py networks|skew|granularity|spine|real_job RESULTS.csv...
tests/readme_commands_test.py --update writes them into the pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))

from results import Sweep, load

NETWORKS = {
    "network_nvlink": "8 H200 on NVLink",
    "network_pcie": "8 H200 on PCIe 4.0, two switches",
    "network_400g": "64 H200, 400G a GPU, rails",
    "network_100g": "64 H200, 2x 100G a node, 3:1 spine",
}
SPINE = {
    "ep_64": "EP over 64 ranks, node dedup",
    "ep_32": "EP over 32 ranks, node dedup",
    "hp_64": "HP x EP over 64 ranks",
}


def at(sweep: Sweep, axis: str) -> dict[str, dict[str, dict]]:
    """Rows by value of the axis, then by plan."""
    found: dict[str, dict[str, dict]] = {}
    for row in sweep.rows:
        found.setdefault(row[axis], {})[row["plan"]] = row
    return found


def step(row: dict) -> float:
    return float(row["step_time_s"])


def milliseconds(seconds: float) -> str:
    """Three digits: 71.4 ms, 103 ms."""
    value = 1e3 * seconds
    return f"{value:.1f} ms" if value < 99.95 else f"{value:.0f} ms"


def more(seconds: float, base: float) -> str:
    return f" (+{100 * (seconds / base - 1):.0f} %)" if seconds > base else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "|---|" + "---:|" * (len(head) - 1))
    return "\n".join(lines)


def networks(*sweeps: Sweep) -> str:
    rows = []
    for sweep in sweeps:
        points = at(sweep, "model.moe.top_k")
        row = [NETWORKS[sweep.scenario]]
        for plans in points.values():
            ep, hp = (
                min(step(r) for plan, r in plans.items() if plan.startswith(kind))
                for kind in ("ep", "hp")
            )
            row.append(f"{ep / hp:.2f}")
        rows.append(row)
    first, *others = at(sweeps[0], "model.moe.top_k")
    return table(["best EP step / best HP step", f"k = {first}", *others], rows)


def skew(sweep: Sweep) -> str:
    points = at(sweep, "routing.skew")
    base = points["0"]
    rows = []
    for value in ("0", "0.5", "1"):
        plans = points[value]
        cells = [
            f"{step(plans[plan]):.2f} s{more(step(plans[plan]), step(base[plan]))}"
            for plan in ("ep_64", "ep_8", "hp_8", "hp_16")
        ]
        loads = [float(plans[plan]["load_max_over_mean"]) for plan in ("ep_64", "ep_8")]
        digits = 2 if value == "0" else 1
        rows.append([value, *cells, " / ".join(f"{load:.{digits}f}" for load in loads)])
    head = ["Zipf exponent", "EP over 64", "EP over 8", "HP over 8", "HP over 16"]
    return table([*head, "busiest over mean rank, EP 64 / EP 8"], rows)


def granularity(sweep: Sweep) -> str:
    rows = []
    for value, plans in at(sweep, "equal_parameters.granularity").items():
        g = float(value)
        # g = 1 is the scenario's model: E = 128, k = 4, f = 1536.
        shape = f"{value} ({128 * g:.0f}, {4 * g:.0f}, {1536 / g:.0f})"
        times = [step(plans[plan]) for plan in ("ep_naive", "ep_dedup", "hp")]
        rows.append([shape, *map(milliseconds, times), f"{times[1] / times[2]:.2f}"])
    return table(["g (E, k, f)", "EP naive", "EP dedup", "HP", "HP against dedup EP"], rows)


def spine(sprayed: Sweep, hashed: Sweep) -> str:
    even, uneven = (at(sweep, "cluster.fabric.oversubscription") for sweep in (sprayed, hashed))
    rows = []
    for plan, label in SPINE.items():
        base = step(even["1"][plan])
        cells = [f"{milliseconds(step(p[plan]))}{more(step(p[plan]), base)}" for p in even.values()]
        rows.append([label, *cells, *(milliseconds(step(p[plan])) for p in uneven.values())])
    head = [*(f"{ratio}:1" for ratio in even), *(f"{ratio}:1 hashed" for ratio in uneven)]
    return table(["step", *head], rows)


def real_job(sweep: Sweep) -> str:
    """The better of a kind with and without pairs of micro-batches; memory is that plan's."""
    axis = sweep.axes[0]
    rows = []
    for value, plans in at(sweep, axis).items():
        best = {}
        for kind in ("ep_32", "ep_8", "hp_8", "hp_16"):
            found = min((plans[n] for n in (kind, f"{kind}_pairs") if n in plans), key=step)
            best[kind] = found
        cells = []
        for found in best.values():
            pairs = ", pairs" if found["plan"].endswith("_pairs") else ""
            full = "" if found["status"] == "ok" else ", does not fit"
            gib = float(found["memory_peak_bytes"]) / 2**30
            cells.append(f"{step(found):.1f} s ({gib:.0f} GiB{pairs}{full})")
        fits = [f for f in best.values() if f["status"] == "ok"]
        ep, hp = (
            min((step(f) for f in fits if f["plan"].startswith(kind)), default=float("nan"))
            for kind in ("ep", "hp")
        )
        gain = f"{ep / hp:.2f}" if ep == ep else "HP alone fits"
        rows.append([value, *cells, gain])
    label = {"cluster.fabric.nic": "a GPU's NIC", "equal_parameters.granularity": "granularity"}
    head = ["EP over 32", "EP over 8", "HP, 8 heads", "HP, 16 heads", "HP against EP"]
    return table([label.get(axis, axis), *head], rows)


TABLES = {f.__name__: f for f in (networks, skew, granularity, spine, real_job)}


def main() -> int:
    words = sys.argv[1:]
    if len(words) < 2 or words[0] not in TABLES:
        print(__doc__, file=sys.stderr)
        return 2
    print(TABLES[words[0]](*(load(Path(word))[0] for word in words[1:])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
