"""What headway says of the steps that moe_step.py measured: host and device.

usage: judge.py HEADWAY CSV > docs/validation_host.md

The time of an operation of the host is taken from the rows of use `fit`, one for free-running and one for pinned ranks: the
host's time with the device idle, over the operations that headway counts. Everything else is the public profile of the H200.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
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
    implementation: torch
    expert_parallel: {{dedup: none}}
    group_size: {gpus}
    attention_backend: flash
    overlap_grad_all_reduce: false
    main_params_dtype: bf16
    main_grads_dtype: bf16
    exp_avg_dtype: bf16
    exp_avg_sq_dtype: bf16
profile: {{preset: h200_public, overheads: {{host_launch: {launch:.9g} us}}}}
"""


def predict(headway: str, row: dict, launch_us: float) -> dict:
    tokens = int(row["tokens"])
    sequence = min(tokens, 4096)
    text = SCENARIO.format(**row, sequence=sequence, sequences=tokens // sequence, launch=launch_us)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "step.yaml")
        path.write_text(text)
        run = subprocess.run(
            [headway, "predict", str(path), "--format", "json"], capture_output=True, text=True
        )
    if run.returncode not in (0, 1):
        sys.exit(run.stderr)
    return json.loads(run.stdout)["plans"][0]


def main() -> None:
    headway, path = sys.argv[1:]
    rows = [r for r in csv.DictReader(open(path)) if r["implementation"] == "grouped"]
    print(__doc__.split("\n")[0], file=sys.stderr)
    by_set: dict[str, list[dict]] = {}
    for row in rows:
        by_set.setdefault("pinned" if row["pinned_cores"] != "0" else "free", []).append(row)
    for which, members in by_set.items():
        # A host so slow that the step is its launches: its operations are step over launch.
        slow_us = 1e5
        for row in members:
            slow = predict(headway, row, slow_us)
            row["operations"] = slow["launch_wait_s"] / (slow_us * 1e-6)
            row["host_ms"] = float(row["host_forward_ms"]) + float(row["host_backward_ms"])
        launch_us = statistics.median(
            1e3 * r["host_ms"] / r["operations"] for r in members if r["use"] == "fit"
        )
        print(f"## {which}: {launch_us:.1f} us an operation")
        for row in members:
            plan = predict(headway, row, launch_us)
            step, real = 1e3 * plan["step_time_s"], float(row["step_ms"])
            busy = float(row["gpu_busy_ms"])
            device = step - 1e3 * plan["launch_wait_s"]
            print(
                f"{row['name']:8} {row['use']:5} ops {row['operations']:6.0f} host/op {1e3 * row['host_ms'] / row['operations']:5.1f}"
                f" step {step:8.2f} real {real:8.2f} {100 * (step / real - 1):+6.1f} %  launches {1e3 * plan['launch_wait_s']:7.2f}"
                f" device {device:7.2f} busy {busy:7.2f} nccl {float(row['nccl_ms']):6.2f}"
            )


if __name__ == "__main__":
    main()
