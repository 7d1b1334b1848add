"""One run of headway-bench: its CSV, and the cells that the tables share."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Case:
    """One timed case: medians with a cold L2 unless `hot_us`; one not timed has zeros."""

    suite: str
    op: str
    impl: str
    shape: str
    median_us: float
    p10_us: float
    p90_us: float
    hot_us: float
    flops: float
    bytes: float
    roofline_us: float
    memory: float  # bytes, what the case calls its workspace
    check: str
    error: float
    detail: str  # of the check

    @property
    def timed(self) -> bool:
        return self.median_us > 0

    @property
    def ms(self) -> float:
        return self.median_us / 1e3

    @property
    def tflops(self) -> float:
        return self.flops / self.median_us / 1e6

    @property
    def gbs(self) -> float:
        return self.bytes / self.median_us / 1e3

    @property
    def of_roofline(self) -> float:
        return self.roofline_us / self.median_us


@dataclass(frozen=True)
class Run:
    head: dict[str, str]  # the columns that are the same in every line
    cases: list[Case]

    def case(self, op: str, impl: str, shape: str) -> Case:
        found = [c for c in self.cases if (c.op, c.impl, c.shape) == (op, impl, shape)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} cases {op} {impl} {shape} in the run")
        return found[0]

    def of_op(self, op: str) -> list[Case]:
        return [c for c in self.cases if c.op == op]

    @property
    def copy_gbs(self) -> float:
        return float(self.head["copy_gbs"])


def read_run(path: Path) -> Run:
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    dates = {line["date"] for line in lines}
    if len(dates) != 1:
        raise ValueError(f"{path}: lines of {len(dates)} runs, one is needed")
    hot = {key_of(line): float(line["median_us"]) for line in lines if line["l2"] == "hot"}
    cases = [
        Case(
            *key_of(line),
            *(float(line[name]) for name in ("median_us", "p10_us", "p90_us")),
            hot.get(key_of(line), 0.0),
            *(float(line[name]) for name in ("flops", "bytes", "roofline_us", "workspace_bytes")),
            line["check"],
            float(line["check_error"]),
            line["check_detail"],
        )
        for line in lines
        if line["l2"] != "hot"
    ]
    return Run(lines[0], cases)


def key_of(line: dict[str, str]) -> tuple[str, str, str, str]:
    return (line["suite"], line["op"], line["impl"], line["shape"])


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def ms(microseconds: float) -> str:
    return f"{microseconds / 1e3:.3f} ms"


def gib(case: Case) -> str:
    return f"{case.memory / GIB:.2f} GiB"


def spread(case: Case) -> str:
    return f"{case.p10_us:.1f}-{case.p90_us:.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
