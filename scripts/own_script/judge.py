#!/usr/bin/env python3
"""Imports the traces that train.py recorded, predicts every case, and holds what was measured against it.

import TRACES FOLDER    programs FOLDER/CASE.yaml, and one_replayed.csv: the recorded step, replayed
predict FOLDER          two_predicted.csv: the cases of two ranks on two H200, from the programs alone
compare FOLDER          tables of errors, from FOLDER/one.csv and FOLDER/two.csv of train.py
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cases

HERE = Path(__file__).resolve().parent
PROFILE = "h200_layers"


def headway(options, *words) -> str:
    command = [options.headway, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rows_of(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def value_of(text: str, key: str) -> float:
    """Milliseconds of a key at the head of a program."""
    line = next(line for line in text.splitlines() if line.startswith(key + ":"))
    number, unit = line.split()[1:]
    return float(number) * {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}[unit]


def import_traces(options) -> None:
    rows = []
    for case in cases.IDENTITY + cases.PAIRS:
        trace = options.traces / f"{case.name}.json.gz"
        if case.recorded or case.layout == "fsdp":  # refused: kernels on several streams
            continue
        program = options.folder / f"{case.name}.yaml"
        headway(
            options,
            *("import", "--torch-trace", trace),
            *("--comm", options.traces / f"{case.name}_comm.json"),
            *("--top-k", case.shape.top_k, "-o", program),
        )
        text = program.read_text(encoding="utf-8")
        row = {
            "case": case.name,
            "recorded_ms": round(value_of(text, "measured_step"), 3),
            "replayed_ms": round(value_of(text, "replayed_step"), 3),
            "host_scale": next(x for x in text.splitlines() if x.startswith("host_scale:")).split()[
                1
            ][:5],
        }
        rows.append(row | {"host_bound": "which waits for its host" in text})
    write(options.folder / "one_replayed.csv", rows)


def predict(options) -> None:
    rows = []
    for case in cases.PAIRS:
        if case.layout == "fsdp":
            continue
        words = ["--program", options.folder / f"{case.recorded or case.name}.yaml"]
        words += ["--cluster", HERE / "two_h200.yaml", "--profile", PROFILE]
        with tempfile.TemporaryDirectory() as folder:
            if case.zipf:
                routing = Path(folder) / "routing.yaml"
                weights = ", ".join(f"{w:.8f}" for w in cases.popularity(case))
                routing.write_text(f"routing:\n  skew: {{kind: histogram, weights: [{weights}]}}\n")
                words += ["--routing", routing]
            found = json.loads(headway(options, "predict", *words, "--format", "json"))
            simulated = headway(options, "simulate", *words).splitlines()[1]
        rows.append(
            {
                "case": case.name,
                "step_ms": round(1e3 * found["step_s"], 3),
                "compute_ms": round(1e3 * found["compute_s"], 3),
                "exposed_ms": round(1e3 * found["exposed_s"], 3),
                "host_ms": round(1e3 * found["host_s"], 3),
                "imbalance": round(found["imbalance"], 3),
                "slowest_rank": found["slowest_rank"],
                "simulated": simulated.split(",")[0]
                .removeprefix("step ")
                .removesuffix(" simulated"),
            }
        )
    write(options.folder / "two_predicted.csv", rows)


def errors(title: str, pairs: dict[str, tuple[float, float]]) -> None:
    print(f"\n{title}\n\n| case | predicted ms | measured ms | error |\n|---|---:|---:|---:|")
    off = {name: 100.0 * (p / m - 1.0) for name, (p, m) in pairs.items()}
    for name, (p, m) in pairs.items():
        print(f"| {name} | {p:.2f} | {m:.2f} | {off[name]:+.1f} % |")
    worst = max(off, key=lambda name: abs(off[name]))
    median = statistics.median(abs(e) for e in off.values())
    print(f"\nmedian {median:.1f} %, worst {abs(off[worst]):.1f} % ({worst})")


def compare(options) -> None:
    replayed = {r["case"]: r for r in rows_of(options.folder / "one_replayed.csv")}
    errors(
        "Replay against the recorded process's own step",
        {n: (float(r["replayed_ms"]), float(r["recorded_ms"])) for n, r in replayed.items()},
    )
    fresh = {r["case"]: float(r["step_ms"]) for r in rows_of(options.folder / "one.csv")}
    errors(
        "Replay against a fresh process",
        {n: (float(replayed[n]["replayed_ms"]), m) for n, m in fresh.items()},
    )
    two = options.folder / "two.csv"
    if not two.exists():
        return
    predicted = {
        r["case"]: float(r["step_ms"]) for r in rows_of(options.folder / "two_predicted.csv")
    }
    measured = {r["case"]: float(r["step_ms"]) for r in rows_of(two)}
    errors("Two H200, from one", {n: (p, measured[n]) for n, p in predicted.items()})


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--headway", default="build/bin/headway")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("import", "predict", "compare"):
        verb = verbs.add_parser(name)
        if name == "import":
            verb.add_argument("traces", type=Path)
        verb.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    {"import": import_traces, "predict": predict, "compare": compare}[options.verb](options)


if __name__ == "__main__":
    sys.exit(main())
