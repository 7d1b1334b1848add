"""Reads headway's result files: JSON of `headway predict`, Timeline CSV of any producer, CSV of
`headway sweep`, and plain tables (`headway validate --format csv`, studies).

Figures read results through this module alone; nothing here computes a model number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from command import BadInput, read_text
from palette import LAYERS, PHASES, SOURCES
from schema import Map, Maybe, Pair, check, check_choice, check_columns, check_number, read_rows


@dataclass(frozen=True)
class Prediction:
    """The JSON of `headway predict` (docs/reference/results_format.md)."""

    path: Path
    data: dict

    @property
    def scenario(self) -> str:
        return self.data["scenario"]

    @property
    def plans(self) -> list[dict]:
        return self.data["plans"]


@dataclass(frozen=True)
class Simulation:
    """The JSON of `headway simulate` (docs/reference/simulator.md)."""

    path: Path
    data: dict

    @property
    def scenario(self) -> str:
        return self.data["scenario"]

    @property
    def feasible_plans(self) -> list[dict]:
        return [plan for plan in self.data["plans"] if plan.get("feasible", True)]


@dataclass
class Timeline:
    """One (source, plan) of a Timeline CSV; spans are dictionaries with numbers as numbers."""

    path: Path
    head: dict[str, str]
    source: str
    plan: str
    layers: dict[str, str]  # [plan]
    spans: list[dict] = field(default_factory=list)

    @property
    def scenario(self) -> str:
        return self.head.get("scenario", "")

    @property
    def layer(self) -> str:
        """How the plan splits its MoE layer; files of before 0.2 do not say it."""
        layer = self.layers.get(self.plan)
        if layer is None:
            raise BadInput(f"{self.path}: the line '# layer: {self.plan},...' is missing")
        return layer


@dataclass
class Sweep:
    """CSV of `headway sweep`: a row a point and plan, as text; `axes` are the varied columns."""

    path: Path
    head: dict[str, str]
    axes: list[str]
    rows: list[dict[str, str]]

    @property
    def scenario(self) -> str:
        return self.head.get("scenario", "")


@dataclass
class Table:
    """A CSV with a header line and nothing else, told apart by its columns."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]


Result = Prediction | Simulation | Timeline | Sweep | Table

# What the JSON of predict and of simulate must hold; docs/reference/results_format.md and docs/reference/simulator.md say what it means.
_PASSES = ("forward", "backward", "update")
_NAMES = {"scenario": str, "profile": str, "seed": int, "version": str}
_PHASE = {
    "phase": tuple(PHASES),
    "pass": _PASSES,
    "time_s": float,
    "time_interval_s": Maybe(Pair(float)),
    "hidden_s": Maybe(float),
    "launch_wait_s": Maybe(float),
    "bytes_per_rank_max": Maybe(float),
    "flops_per_rank_max": Maybe(float),
    "bottleneck": Maybe(str),
    "count": Maybe(int),
}
_PREDICTED_PLAN = {
    "name": str,
    "layer": Maybe(tuple(LAYERS)),
    "feasible": bool,
    "infeasible_because": str,
    "step_time_s": float,
    "step_time_interval_s": Pair(float),
    "launch_wait_s": Maybe(float),
    "tokens_per_s_per_gpu": float,
    "model_tflops_per_gpu": float,
    "tokens_per_s": Maybe(float),
    "tokens_per_day": Maybe(float),
    "gpu_hours_per_1e12_tokens": Maybe(float),
    "mfu": Maybe(float),
    "parameters": Maybe(float),
    "active_parameters": Maybe(float),
    "speedup_vs_baseline": float,
    "undecided": Maybe(bool),
    "moe_layer": {
        "forward_s": float,
        "backward_s": float,
        "forward_interval_s": Maybe(Pair(float)),
        "backward_interval_s": Maybe(Pair(float)),
    },
    "phases": [_PHASE],
    "traffic": {
        "sent_bytes_per_rank_mean": float,
        "sent_bytes_per_rank_max": float,
        "by_link": Map(float),
        "imbalance": float,
    },
    "memory": {
        "peak_bytes": float,
        "allocated_bytes": Maybe(float),
        "reserve_bytes": Maybe(float),
        "items": Map(float),
        "capacity_bytes": float,
        "host": Maybe({"node_bytes": float, "items": Map(float), "capacity_bytes": Maybe(float)}),
        "stage": Maybe(int),
        "stages": Maybe([{"peak_bytes": float, "allocated_bytes": float, "items": Map(float)}]),
    },
    "pipeline": Maybe({"ranks": [{}]}),
    "warnings": [str],
}
_PREDICTION = {
    **_NAMES,
    "model": Maybe(str),
    "cluster": Maybe(str),
    "device": Maybe(str),
    "num_ranks": Maybe(int),
    "global_batch_sequences": Maybe(int),
    "sequence_length": Maybe(int),
    "tokens_per_step": Maybe(int),
    "baseline": str,
    "notes": [str],
    "unpriced": Maybe([{"name": str, "because": str}]),
    "against": Maybe(
        {
            "scenario": str,
            "plan": str,
            "tokens_per_s": float,
            "feasible": bool,
            "plans": [{"plan": str, "speedup": float, "undecided": bool}],
        }
    ),
    "plans": [_PREDICTED_PLAN],
}
_SIMULATION = {
    "scenario": str,
    "plans": [{"name": str, "layer": Maybe(tuple(LAYERS)), "feasible": Maybe(bool)}],
}
_SIMULATED_PLAN = {
    "step_time_s": float,
    "predicted_step_time_s": Maybe(float),
    "rank_finish_s": [float],
    "rank_compute_s": [float],
    "link_use": Maybe({"links": Map([float])}),
}

_TEXT_COLUMNS = ("source", "plan", "pass", "phase", "bottleneck")
_INTEGER_COLUMNS = ("rank", "layer", "micro_batch", "count", "samples")
_NUMBER_COLUMNS = ("begin_s", "duration_s", "low_s", "high_s", "bytes", "flops")
_SWEEP_NUMBERS = (
    "step_time_s",
    "step_low_s",
    "step_high_s",
    "speedup_vs_baseline",
    "sent_bytes_max",
    "memory_peak_bytes",
    "memory_capacity_bytes",
)
# Not JSON, and no head: a table is known by its first column, and has these columns of numbers (or nothing).
_TABLES = {
    "part": ("ratio", "speedup"),
    "category": ("predicted", "published"),
    "kind": ("predicted_us", "low_us", "high_us", "measured_us", "top_k"),
}


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no number of JSON")


def load(path: Path) -> list[Result]:
    """All results of a file: one for JSON, one for each (source, plan) of a Timeline CSV."""
    text = read_text(path)
    if text.startswith("# headway timeline"):
        return list(_read_timelines(path, text.splitlines()))
    if text.startswith("# headway sweep"):
        return [_read_sweep(path, text.splitlines())]
    if text.partition(",")[0] in _TABLES:
        return [_read_table(path, text.splitlines())]
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: neither a CSV of headway nor JSON ({error})") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a JSON object was expected")
    if "plans" in data and data.get("source") == "simulated":
        return [_checked_simulation(path, data)]
    if "plans" in data and "scenario" in data:
        check(path, _PREDICTION, data)
        return [Prediction(path, data)]
    raise BadInput(f"{path}: JSON, but neither of headway predict nor of headway simulate")


def _checked_simulation(path: Path, data: dict) -> Simulation:
    check(path, _SIMULATION, data)
    for index, plan in enumerate(data["plans"]):
        if not plan.get("feasible", True):
            continue
        where = f"plans[{index}]"
        check(path, _SIMULATED_PLAN, plan, where)
        if not plan["rank_finish_s"] or len(plan["rank_finish_s"]) != len(plan["rank_compute_s"]):
            raise BadInput(
                f"{path}: {where}: {len(plan['rank_finish_s'])} times in rank_finish_s, "
                f"{len(plan['rank_compute_s'])} in rank_compute_s; accepted: one a rank in both"
            )
        if len({len(use) for use in plan.get("link_use", {"links": {}})["links"].values()}) > 1:
            raise BadInput(f"{path}: {where}.link_use.links: lists of different lengths")
    return Simulation(path, data)


def _take_head(path: Path, lines: list[str]) -> dict[str, str]:
    """Removes the head; what remains is the header, the rows and the end mark."""
    head = {}
    while lines and lines[0].startswith("#"):
        key, _, value = lines.pop(0)[1:].partition(":")
        head[key.strip()] = value.strip()
    if not lines or not lines[-1].startswith("# end: "):
        raise BadInput(f"{path}: the file is cut: its end mark is missing")
    if lines[-1] != f"# end: {len(lines) - 2} rows":
        raise BadInput(f"{path}: the number of rows is not that of the end mark")
    return head


def _read_table(path: Path, lines: list[str]) -> Table:
    columns, rows = read_rows(path, lines, 1)
    for column in _TABLES[columns[0]]:
        if column in columns and (columns[0], column) != ("part", "ratio"):
            for line, row in enumerate(rows, start=2):
                check_number(path, line, column, row[column], empty=True)
    return Table(path, columns, rows)


def _read_sweep(path: Path, lines: list[str]) -> Sweep:
    total = len(lines)
    head = _take_head(path, lines)
    first = total - len(lines) + 1
    columns, rows = read_rows(path, lines[:-1], first)
    check_columns(path, columns, ("plan", "layer", "source", "status", *_SWEEP_NUMBERS))
    for line, row in enumerate(rows, start=first + 1):
        check_choice(path, line, "layer", row["layer"], tuple(LAYERS))
        for column in _SWEEP_NUMBERS:
            check_number(path, line, column, row[column], empty=True)
    return Sweep(path, head, columns[: columns.index("plan")], rows)


def _layers(path: Path, lines: list[str]) -> dict[str, str]:
    """The kinds that the lines '# layer: PLAN,KIND' of a head give."""
    layers = {}
    for number, line in enumerate(lines, start=1):
        if not line.startswith("#"):
            break
        if line.startswith("# layer: "):
            _, rows = read_rows(path, ["plan,layer", line.removeprefix("# layer: ")], number)
            check_choice(path, number, "layer", rows[0]["layer"], tuple(LAYERS))
            layers[rows[0]["plan"]] = rows[0]["layer"]
    return layers


def _read_timelines(path: Path, lines: list[str]) -> list[Timeline]:
    total = len(lines)
    layers = _layers(path, lines)
    head = _take_head(path, lines)
    first = total - len(lines) + 1
    columns, rows = read_rows(path, lines[:-1], first)
    check_columns(path, columns, (*_TEXT_COLUMNS, *_INTEGER_COLUMNS, *_NUMBER_COLUMNS))
    timelines: dict[tuple[str, str], Timeline] = {}
    for line, row in enumerate(rows, start=first + 1):
        key = (row["source"], row["plan"])
        timeline = timelines.setdefault(key, Timeline(path, head, *key, layers))
        timeline.spans.append(_span(path, line, row))
    return list(timelines.values())


_CHOICES = {"source": tuple(SOURCES), "pass": _PASSES, "phase": tuple(PHASES)}


def _span(path: Path, line: int, row: dict[str, str]) -> dict:
    span: dict = dict(row)
    for column, accepted in _CHOICES.items():
        check_choice(path, line, column, row[column], accepted)
    for column in _NUMBER_COLUMNS:
        check_number(path, line, column, row[column])
        span[column] = float(row[column])
    for column in _INTEGER_COLUMNS:
        check_number(path, line, column, row[column], whole=True)
        span[column] = int(row[column])
    return span
