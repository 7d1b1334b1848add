#!/usr/bin/env python3
"""Writes one self-contained HTML page of a prediction.

usage: python3 analysis/report.py PREDICTION.json [--scenario SCENARIO.yaml] -o REPORT.html
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


def main() -> None:
    parser = command.Parser(prog="headway report")
    parser.add_argument("prediction", type=Path)
    parser.add_argument("--scenario", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()

    from report_page import page
    from results import Prediction, load

    results = load(arguments.prediction)
    if len(results) != 1 or not isinstance(results[0], Prediction):
        raise BadInput(f"{arguments.prediction}: not the JSON of headway predict")
    inputs = [path for path in (arguments.prediction, arguments.scenario) if path is not None]
    scenario = command.read_text(arguments.scenario) if arguments.scenario else None
    text = page(results[0], scenario)
    command.write_whole(arguments.out, inputs, lambda file: file.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(command.run(main))
