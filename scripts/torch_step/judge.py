"""What headway says of the steps that moe_step.py measured: their time, their host and their kernels.

usage: judge.py HEADWAY FOLDER > docs/results/generated/validation_host.md
FOLDER holds validation_host.csv and validation_host_phases.csv. The rows of use `fit` give the time of an operation of the host
and the bytes that an operator moves beyond a fused kernel; those of use `judge` say how well both hold.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

SCENARIO = """\
name: {name}
model:
  name: {name}
  vocab_size: {vocab}
  hidden: {hidden}
  num_layers: {layers}
  attention: {{num_heads: {heads}, num_kv_heads: {kv_heads}, head_width: {head_dim}}}
  moe: {{num_experts: {experts}, top_k: {top_k}, expert_width: {expert_hidden}, activation: swiglu}}
cluster: {{preset: dgx_h200, gpus_per_node: {gpus}}}
batch: {{sequence_length: {sequence}, sequences_per_rank: {sequences}, num_micro_batches: {micro_batches}}}
plans:
  - name: ep
    implementation: {framework}
    expert_parallel: {{dedup: none}}
    group_size: {gpus}
    attention_backend: {attention}
    overlap_grad_all_reduce: false
    main_params_dtype: bf16
    main_grads_dtype: bf16
    exp_avg_dtype: bf16
    exp_avg_sq_dtype: bf16
profile: {{preset: h200_public, overheads: {{host_launch: {launch:.9g} us}}}}
"""
STREAM = 3.9e12  # bytes/s of a large stream in the profile
SLOW_US = 1e5  # of an operation: the step is its launches, so that they can be counted
LONG_MS = 20.0  # steps from here on are the device's


class Headway:
    def __init__(self, program: str):
        self.program = program

    def predict(
        self, row: dict, launch_us: float, framework: str = "torch", attention: str = "flash"
    ) -> dict:
        tokens = int(row["tokens"])
        sequence = min(tokens, 4096)
        text = SCENARIO.format(
            **row,
            sequence=sequence,
            sequences=tokens // sequence,
            launch=launch_us,
            framework=framework,
            attention=attention,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "step.yaml")
            path.write_text(text)
            command = [self.program, "predict", str(path), "--format", "json"]
            run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode not in (0, 1):
            sys.exit(run.stderr)
        return json.loads(run.stdout)["plans"][0]

    def phases_ms(self, row: dict, framework: str, attention: str) -> dict:
        plan = self.predict(row, 1e-6, framework, attention)
        return {(p["pass"], p["phase"]): 1e3 * p["time_s"] for p in plan["phases"]}


def table(head: list[str], rows: list[list[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "|".join("---" if i == 0 else "---:" for i in range(len(head))) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def quality(errors: list[float]) -> str:
    sizes = [abs(e) for e in errors]
    return f"{statistics.median(sizes):.1f} % in the median, {max(sizes):.1f} % at worst, {statistics.mean(errors):+.1f} % in the mean"


def steps(headway: Headway, which: str, rows: list[dict]) -> None:
    for row in rows:
        launches = headway.predict(row, SLOW_US)["launch_wait_s"]
        row["operations"] = launches / (SLOW_US * 1e-6)
        row["host_ms"] = float(row["host_forward_ms"]) + float(row["host_backward_ms"])
    of_fit = [1e3 * r["host_ms"] / r["operations"] for r in rows if r["use"] == "fit"]
    launch_us = statistics.median(of_fit)
    print(f"## Steps, {which}\n")
    print(
        f"An operation takes the host {launch_us:.1f} us ({min(of_fit):.1f} to {max(of_fit):.1f} over the rows to fit by).\n"
    )
    lines, errors = [], defaultdict(list)
    for row in rows:
        plan = headway.predict(row, launch_us)
        step, real, waits = (
            1e3 * plan["step_time_s"],
            float(row["step_ms"]),
            1e3 * plan["launch_wait_s"],
        )
        error = 100.0 * (step / real - 1.0)
        bound = "host" if waits > 0.1 * step else "device"
        errors[row["use"], bound].append(error)
        lines.append(
            [
                f"{row['name']}: {row['gpus']} GPU, T {row['tokens']} d {row['hidden']} E {row['experts']} k {row['top_k']} "
                f"f {row['expert_hidden']}, {row['layers']} layers x {row['micro_batches']}",
                row["use"],
                f"{row['operations']:.0f}",
                f"{step:.1f}",
                f"{waits:.1f}",
                f"{real:.1f} ({float(row['step_p10_ms']):.1f}-{float(row['step_p90_ms']):.1f})",
                f"{error:+.1f} %",
            ]
        )
    head = [
        "step",
        "use",
        "operations",
        "predicted, ms",
        "of it launches",
        "measured, ms (p10-p90)",
        "error",
    ]
    table(head, lines)
    for (use, bound), found in sorted(errors.items(), reverse=True):
        print(f"- {use}, bound by the {bound}: {quality(found)}.")
    print()


def elements(row: dict) -> dict:
    i = {
        k: int(row[k])
        for k in ("tokens", "hidden", "heads", "kv_heads", "head_dim", "top_k", "vocab")
    }
    return {
        "rotated element": i["tokens"] * (i["heads"] + i["kv_heads"]) * i["head_dim"],
        "element of a routed row": i["tokens"] * i["top_k"] * i["hidden"],
        "logit": i["tokens"] * i["vocab"],
        "element of a token": i["tokens"] * i["hidden"],
    }


OPERATORS = [
    ("norm", "element of a token"),
    ("attention_qkv", "rotated element"),
    ("route", "element of a token"),
    ("permute", "element of a routed row"),
    ("regroup", "element of a routed row"),
    ("ungroup", "element of a routed row"),
    ("unpermute", "element of a routed row"),
    ("loss", "logit"),
]


def operators(headway: Headway, rows: list[dict], measured: dict) -> None:
    print("## Kernels\n")
    print(
        f"Time of the device by phase, less what headway gives the fused kernel, as bytes at {STREAM / 1e12:g} TB/s; medians over "
        f"the steps of {LONG_MS:g} ms and more without pinning.\n"
    )
    beyond, ratio = defaultdict(lambda: defaultdict(list)), defaultdict(lambda: defaultdict(list))
    for row in rows:
        fused = headway.phases_ms(row, "fused", "fused")
        runs = int(row["micro_batches"]) * int(row["layers"])
        for phase, unit in OPERATORS:
            for direction in ("forward", "backward"):
                found = measured[row["name"]].get((direction, phase))
                if found is None:
                    continue
                times = int(row["micro_batches"]) if phase == "loss" else runs
                gap_ms = (found - fused.get((direction, phase), 0.0)) / times
                beyond[phase, unit, direction][row["use"]].append(
                    gap_ms * 1e-3 * STREAM / elements(row)[unit]
                )
        for phase in ("attention_core", "attention_out", "expert", "lm_head"):
            for direction in ("forward", "backward"):
                ratio[phase, direction][row["use"]].append(
                    measured[row["name"]][direction, phase] / fused[direction, phase]
                )

    def spread(values: list[float], digits: int) -> str:
        middle = statistics.median(values)
        return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    head = ["phase", "bytes of", "to fit by", "to judge by"]
    lines = [
        [f"{phase}, {direction}", unit, spread(v["fit"], 0), spread(v["judge"], 0)]
        for (phase, unit, direction), v in beyond.items()
    ]
    table(head, lines)
    print(
        "The other kernels, measured over predicted by the profile as it is (attention: cuDNN's curve, FlashAttention 2 ran):\n"
    )
    lines = [
        [f"{phase}, {direction}", spread(v["fit"], 2), spread(v["judge"], 2)]
        for (phase, direction), v in ratio.items()
    ]
    table(["phase", "to fit by", "to judge by"], lines)


def main() -> None:
    program, folder = sys.argv[1:]
    with open(Path(folder, "validation_host.csv"), newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["implementation"] == "grouped"]
    measured: dict = defaultdict(dict)
    with open(Path(folder, "validation_host_phases.csv"), newline="") as file:
        for r in csv.DictReader(file):
            measured[r["shape"]][r["pass"], r["phase"]] = float(r["gpu_us_a_step"]) / 1e3
    headway = Headway(program)
    print("# Eager PyTorch on two H200, predicted\n")
    first = rows[0]
    print(
        "Written by `scripts/torch_step/judge.py build/bin/headway docs/results > docs/results/generated/validation_host.md`. The steps are those of "
        "`scripts/torch_step/moe_step.py grid`: a plain MoE transformer, dropless EP over NCCL, free-running; "
        f"{first['device']}, {first['cpu']}, PyTorch {first['torch']}, NCCL {first['nccl']}, driver {first['driver']}, {first['date'][:10]}. "
        "Predicted with `implementation: torch` on the public profile of the H200. Which shapes fit and which judge was drawn before "
        "any was measured. Pinned: each rank on a core of its own, short steps alone.\n"
    )
    free = [r for r in rows if r["pinned_cores"] == "0"]
    steps(headway, "free-running, two runs", free)
    steps(headway, "pinned", [r for r in rows if r["pinned_cores"] != "0"])
    seen: dict = {}
    for row in free:
        if float(row["step_ms"]) >= LONG_MS and float(row["gpu_busy_ms"]) > 0.5 * float(
            row["step_ms"]
        ):
            seen.setdefault(row["name"], row)
    operators(headway, list(seen.values()), measured)


if __name__ == "__main__":
    main()
