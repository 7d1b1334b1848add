"""Predictions of the drawn steps, and what became of them.

judge.py predict HEADWAY PROFILE CASES OUT.csv: step time, interval and memory of every plan, before anything is run.
judge.py judge PREDICTED.csv RESULTS OUT.csv: beside them the measured Timelines RESULTS/<case>.csv; prints the errors.
judge.py now HEADWAY PROFILE CASES JUDGED.csv OUT.csv: the same runs beside what is predicted now, of plans with
    implementation: headway; not blind.
judge.py memory HEADWAY PROFILE CASES JUDGED.csv OUT.csv: the memory of those runs beside what is predicted now.
judge.py phases HEADWAY PROFILE CASES RESULTS OUT.csv: the same phase by phase, by `headway verify`.
"""

import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PREDICTED = [
    "case",
    "plan",
    "ranks",
    "layers",
    "tokens",
    "step_s",
    "low_s",
    "high_s",
    "memory_bytes",
]
JUDGED = [
    *PREDICTED,
    "measured_s",
    "p10_s",
    "p90_s",
    "measured_memory_bytes",
    "error",
    "memory_error",
]


def predict(headway: str, profile: str, cases: str, out: str) -> None:
    write(out, PREDICTED, predictions(headway, profile, cases))


def predictions(headway: str, profile: str, cases: str) -> list[list]:
    rows = []
    for case in sorted(Path(cases).glob("*.yaml")):
        command = [headway, "predict", str(case), "--profile", profile, "--format", "json"]
        found = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )
        layers = next(int(line.split(":")[1]) for line in case.open() if "num_layers:" in line)
        for plan in found["plans"]:
            ranks = found["num_ranks"]
            tokens = found["tokens_per_step"] // ranks
            times = [plan["step_time_s"], *plan["step_time_interval_s"]]
            memory = plan["memory"]["allocated_bytes"]
            rows.append([case.stem, plan["name"], ranks, layers, tokens, *times, memory])
    return rows


def memory(headway: str, profile: str, cases: str, judged: str, out: str) -> None:
    runs = {(row["case"], row["plan"]): row for row in csv.DictReader(Path(judged).open())}
    rows = []
    for case, plan, *_, now in predictions(headway, profile, cases):
        then, found = (
            float(runs[case, plan][c]) for c in ("memory_bytes", "measured_memory_bytes")
        )
        rows.append([case, plan, then, now, found, now / found - 1])
    write(out, ["case", "plan", "then_bytes", "now_bytes", "measured_bytes", "error_now"], rows)
    for kind in ("ep_naive", "ep_rank", "hp"):
        summary(f"memory now, {kind}", [row[-1] for row in rows if row[1] == kind])
    summary("memory now, all", [row[-1] for row in rows])


def write(out: str, columns: list[str], rows: list[list]) -> None:
    with Path(out).open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def measured(file: Path) -> dict[str, dict[str, float]]:
    """By plan, from the head of a Timeline CSV."""
    plans: dict[str, dict[str, float]] = {}
    for line in file.open():
        if line.startswith("# run: "):
            name, _, _, memory, *_ = line[7:].split(",")
            plans.setdefault(name, {})["memory"] = float(memory)
        if line.startswith("# step: "):
            name, *times = line[8:].split(",")
            plans.setdefault(name, {}).update(zip(("time", "low", "high"), map(float, times[:3])))
    return plans


def summary(name: str, errors: list[float]) -> None:
    if not errors:
        return
    size = sorted(abs(e) for e in errors)
    print(
        f"{name}: {len(errors)}, median {statistics.median(size):.1%}, 95th percentile "
        f"{size[min(len(size) - 1, int(0.95 * len(size)))]:.1%}, worst {size[-1]:.1%}, mean {statistics.mean(errors):+.1%}"
    )


def judge(predicted: str, results: str, out: str) -> None:
    rows = []
    for row in csv.DictReader(Path(predicted).open()):
        file = Path(results) / f"{row['case']}.csv"
        found = measured(file).get(row["plan"]) if file.exists() else None
        if found is None:
            print(f"not run: {row['case']} {row['plan']}")
            continue
        rows.append(beside([row[c] for c in PREDICTED], found))
    write_judged(out, rows)


def beside(predicted: list, found: dict[str, float]) -> list:
    step, memory = (float(predicted[PREDICTED.index(c)]) for c in ("step_s", "memory_bytes"))
    errors = [step / found["time"] - 1, memory / found["memory"] - 1]
    return [*predicted, *(found[c] for c in ("time", "low", "high", "memory")), *errors]


def write_judged(out: str, rows: list[list]) -> None:
    write(out, JUDGED, rows)
    report([dict(zip(JUDGED, row)) for row in rows])


def now(headway: str, profile: str, cases: str, judged: str, out: str) -> None:
    columns = {
        "time": "measured_s",
        "low": "p10_s",
        "high": "p90_s",
        "memory": "measured_memory_bytes",
    }
    runs = {
        (row["case"], row["plan"]): {name: float(row[c]) for name, c in columns.items()}
        for row in csv.DictReader(Path(judged).open())
    }
    with tempfile.TemporaryDirectory() as folder:
        for case in Path(cases).glob("*.yaml"):
            text = re.sub(
                r"(?m)^(  - \{name: (?!.*implementation: ).*)\}$",
                r"\1, implementation: headway}",
                case.read_text(),
            )
            (Path(folder) / case.name).write_text(text)
        predicted = predictions(headway, profile, folder)
    write_judged(out, [beside(p, runs[p[0], p[1]]) for p in predicted if (p[0], p[1]) in runs])


def report(rows: list[dict]) -> None:
    for row in rows:
        inside = float(row["low_s"]) <= row["measured_s"] <= float(row["high_s"])
        print(
            f"{row['case']} {row['plan']:<9} L {row['layers']:>2} T {row['tokens']:>5}: predicted "
            f"{1e3 * float(row['step_s']):7.2f} ms, measured {1e3 * row['measured_s']:7.2f}, {row['error']:+6.1%} "
            f"{'inside ' if inside else 'outside'} memory {row['memory_error']:+.1%}"
        )
    kinds = {
        "all steps": lambda r: True,
        "one rank": lambda r: int(r["ranks"]) == 1,
        "two ranks": lambda r: int(r["ranks"]) == 2,
        "EP naive": lambda r: r["plan"].startswith("ep_naive"),
        "EP by rank": lambda r: r["plan"].startswith("ep_rank"),
        "HP": lambda r: r["plan"].startswith("hp"),
        "as a graph": lambda r: r["plan"].endswith("_graph"),
    }
    for name, chosen in kinds.items():
        summary(f"step time, {name}", [r["error"] for r in rows if chosen(r)])
    inside = [float(r["low_s"]) <= r["measured_s"] <= float(r["high_s"]) for r in rows]
    print(f"inside their interval: {sum(inside)} of {len(inside)}")
    summary("memory", [r["memory_error"] for r in rows])
    steps = {(r["case"], r["plan"]): r for r in rows}
    speedups, changes = [], []
    for (case, plan), row in steps.items():
        kind, _, suffix = plan.removeprefix("ep_").partition("_")
        hp = steps.get((case, "hp" + ("_" + suffix if suffix else "")))
        if hp is not None and kind != "hp":
            speedups.append(error_of_ratio(row, hp))
        if suffix:
            changes.append(error_of_ratio(row, steps[case, plan.removesuffix("_" + suffix)]))
    summary("speedup of HP over EP, alike recomputed and launched", speedups)
    summary("step with recompute, or as a graph, over that without", changes)


def error_of_ratio(a: dict, b: dict) -> float:
    predicted = float(a["step_s"]) / float(b["step_s"])
    return predicted / (a["measured_s"] / b["measured_s"]) - 1


def phases(headway: str, profile: str, cases: str, results: str, out: str) -> None:
    """Sums over the spans of all cases' steps by phase and pass, predicted and on the slowest rank."""
    rows, sums = [], {}
    for case in sorted(Path(cases).glob("*.yaml")):
        file, both = Path(results) / f"{case.stem}.csv", Path(results) / f"{case.stem}_both.csv"
        if not file.exists():
            continue
        command = [headway, "verify", str(case), "--profile", profile, "--measured", str(file)]
        subprocess.run(
            [*command, "--csv", str(both), "--tolerance", "1e9"], check=True, capture_output=True
        )
        for (plan, phase, pass_), (predicted, found) in by_phase(both).items():
            rows.append([case.stem, plan, phase, pass_, predicted, found])
            total = sums.setdefault((phase, pass_), [0.0, 0.0])
            total[0] += predicted
            total[1] += found
    write(out, ["case", "plan", "phase", "pass", "predicted_s", "measured_s"], rows)
    for (phase, pass_), (predicted, found) in sorted(
        sums.items(), key=lambda item: -abs(item[1][0] - item[1][1])
    ):
        ratio = f"{predicted / found - 1:+7.1%}" if found > 0 else "      -"
        print(
            f"{phase:<16} {pass_:<8} predicted {1e3 * predicted:8.2f} ms, measured {1e3 * found:8.2f} ms, {ratio}"
        )


def by_phase(file: Path) -> dict[tuple[str, str, str], list[float]]:
    lines = [line for line in file.open() if not line.startswith("#")]
    of_rank: dict[tuple, float] = {}  # a phase that is recomputed runs twice
    batches: dict[str, int] = {}  # a prediction is of one micro-batch
    for row in csv.DictReader(lines):
        key = (row["plan"], row["phase"], row["pass"], row["source"], row["layer"])
        key = (*key, row["micro_batch"], row["rank"])
        of_rank[key] = of_rank.get(key, 0.0) + float(row["duration_s"]) * int(row["count"])
        batches[row["plan"]] = max(batches.get(row["plan"], 0), int(row["micro_batch"]) + 1)
    slowest: dict[tuple, float] = {}
    for (*key, _), time in of_rank.items():
        slowest[tuple(key)] = max(slowest.get(tuple(key), 0.0), time)
    sums: dict[tuple[str, str, str], list[float]] = {}
    for (plan, phase, pass_, source, *_), time in slowest.items():
        times = 1 if source == "measured" or pass_ == "update" else batches[plan]
        sums.setdefault((plan, phase, pass_), [0.0, 0.0])[source == "measured"] += times * time
    return sums


if __name__ == "__main__":
    {"predict": predict, "judge": judge, "now": now, "memory": memory, "phases": phases}[
        sys.argv[1]
    ](*sys.argv[2:])
