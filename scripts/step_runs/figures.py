"""Figures of whole steps: figures.py steps OUT.png JUDGED.csv..., figures.py losses OUT.png CPU.csv NAME=LOSSES.csv..."""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))
from style import plt, use_style

NAMES = {"ep_naive": "EP", "ep_rank": "EP by rank", "hp": "HP"}
MARKS = {"ep_naive": ("o", "#0072B2"), "ep_rank": ("s", "#56B4E9"), "hp": ("D", "#D55E00")}


def steps(out: str, *judged: str) -> None:
    rows = [row for file in judged for row in csv.DictReader(Path(file).open())]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for plan, (mark, colour) in MARKS.items():
        for ranks, fill in (("1", "none"), ("2", colour)):
            chosen = [r for r in rows if r["plan"] == plan and r["ranks"] == ranks]
            if not chosen:
                continue
            measured = [1e3 * float(r["measured_s"]) for r in chosen]
            style = {"marker": mark, "linestyle": "", "color": colour, "markerfacecolor": fill}
            label = f"{NAMES[plan]}, {ranks} GPU{'s' if ranks == '2' else ''}"
            left.plot(measured, [1e3 * float(r["step_s"]) for r in chosen], label=label, **style)
            right.plot(measured, [100 * float(r["error"]) for r in chosen], **style)
    ends = [
        min(1e3 * float(r["measured_s"]) for r in rows),
        max(1e3 * float(r["measured_s"]) for r in rows),
    ]
    left.plot(ends, ends, color="0.5", linewidth=1, zorder=0)
    right.axhline(0, color="0.5", linewidth=1, zorder=0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("measured step (ms)")
    left.set_yscale("log")
    left.set_ylabel("predicted step (ms)")
    right.set_ylabel("predicted over measured (%)")
    left.legend(fontsize="small")
    figure.suptitle("Whole steps of one and two H200, drawn and predicted before they ran")
    figure.savefig(out)


def read_losses(file: str) -> dict[str, list[float]]:
    plans: dict[str, list[float]] = {}
    for row in csv.DictReader(Path(file).open()):
        plans.setdefault(row["plan"], []).append(float(row["loss"]))
    return plans


def losses(out: str, reference: str, *files: str) -> None:
    """Means over 25 steps, and how far the first steps are from the reference's."""
    of_cpu = read_losses(reference)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    for number, file in enumerate(files):
        name, path = file.split("=", 1)
        for plan, values in read_losses(path).items():
            style = {"linestyle": ("-", "--")[number % 2], "color": MARKS[plan][1]}
            means = [sum(values[i : i + 25]) / 25 for i in range(0, len(values) - 24, 25)]
            steps_ = range(13, 13 + 25 * len(means), 25)
            left.plot(steps_, means, label=f"{NAMES[plan]}, {name}", **style)
            if plan in of_cpu:
                far = [value - other for value, other in zip(values, of_cpu[plan])]
                right.plot(range(1, len(far) + 1), far, **style)
    left.set_xlabel("step")
    left.set_ylabel("loss (nats a byte), mean of 25 steps")
    left.legend(fontsize="small")
    right.axhline(0, color="0.5", linewidth=1, zorder=0)
    right.set_xlabel("step")
    right.set_xticks(range(0, 21, 5))
    right.set_ylabel("loss less the CPU reference's (nats)")
    figure.suptitle("A model of bytes learns docs/reference/model.md: EP and HP, one and two GPUs")
    figure.savefig(out)


if __name__ == "__main__":
    use_style()
    {"steps": steps, "losses": losses}[sys.argv[1]](*sys.argv[2:])
