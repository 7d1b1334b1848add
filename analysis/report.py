#!/usr/bin/env python3
"""Writes one self-contained HTML page of a prediction, and of a sweep of its scenario.

usage: python3 analysis/report.py PREDICTION.json [--scenario SCENARIO.yaml] [--sweep RESULTS.csv] -o REPORT.html
`headway report` calls this. Exit code 2 for bad input.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while modules load

# ruff: noqa: E402
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import command
from command import BadInput
from results import Prediction, Sweep, load

LARGEST_SWEEP = 5000  # rows: a browser opens that page in three seconds, one of 20,000 in a minute


def only(path: Path, kind: type, accepted: str):
    """The one result of a file."""
    results = load(path)
    if len(results) != 1 or not isinstance(results[0], kind):
        raise BadInput(f"{path}: not {accepted}")
    return results[0]


def sweep_of(path: Path, scenario: str) -> Sweep:
    sweep = only(path, Sweep, "the CSV of headway sweep")
    if sweep.scenario != scenario:
        raise BadInput(f"{path}: a sweep of {sweep.scenario!r}; accepted: one of {scenario!r}")
    if not 0 < len(sweep.rows) <= LARGEST_SWEEP:
        raise BadInput(f"{path}: {len(sweep.rows)} rows; accepted: 1 to {LARGEST_SWEEP}")
    return sweep


def main() -> None:
    parser = command.Parser(prog="headway report")
    parser.add_argument("prediction", type=Path)
    parser.add_argument("--scenario", type=Path)
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()

    from page import page

    data = only(arguments.prediction, Prediction, "the JSON of headway predict").data
    if not data["plans"]:
        raise BadInput(f"{arguments.prediction}: plans: a list of 0; accepted: one plan or more")
    sweep = sweep_of(arguments.sweep, data["scenario"]) if arguments.sweep else None
    scenario = command.read_text(arguments.scenario) if arguments.scenario else None
    inputs = [arguments.prediction, arguments.scenario, arguments.sweep]
    text = page(data, sweep, scenario)
    command.write_whole(
        arguments.out,
        [path for path in inputs if path is not None],
        lambda file: file.write_text(text, encoding="utf-8"),
    )


if __name__ == "__main__":
    sys.exit(command.run(main))
