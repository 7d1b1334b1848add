"""The paper's question as whole steps of two GPUs: its model at base and doubled granularity, k and tokens small to large.

paper.py FOLDER: a scenario each, EP naive, EP by rank and HP, by headway's own host.
paper.py table JUDGED.csv: from what judge.py has written, how many times as fast HP's step is, measured and predicted.
"""

import csv
import sys
from pathlib import Path

SCENARIO = """\
# Written by scripts/step_runs/paper.py, predicted before any step of it was run.
model:
  preset: {preset}
  num_layers: 10
  moe: {{top_k: {top_k}}}
cluster: {{preset: dgx_h200, nodes: 1, gpus_per_node: 2}}
batch: {{sequence_length: {sequence}, sequences_per_rank: {sequences}}}
plans:
  - {{name: ep_naive, expert_parallel: {{}}, group_size: 2, implementation: headway}}
  - {{name: ep_rank, expert_parallel: {{dedup: rank}}, group_size: 2, implementation: headway}}
  - {{name: hp, head_parallel: {{num_heads: 8}}, group_size: 2, implementation: headway}}
baseline: ep_naive
"""
# k of the doubled model is twice that of the base one, as its experts are half as wide.
MODELS = {"base": ("paper_base", 1), "double": ("paper_double_granularity", 2)}
BATCHES = [(512, 1), (2048, 2), (2048, 8)]


def speedup(times: dict[str, float]) -> str:
    """Over EP naive and over EP by rank."""
    return " and ".join(f"{times[ep] / times['hp']:.2f}" for ep in ("ep_naive", "ep_rank"))


def table(judged: str) -> None:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in csv.DictReader(Path(judged).open()):
        for column in ("measured_s", "step_s"):
            times = found.setdefault(row["case"], {}).setdefault(column, {})
            times[row["plan"]] = float(row[column])
    print("| | " + " | ".join(f"{a * b} tokens a rank" for a, b in BATCHES) + " |")
    print("|---|" + "---:|" * len(BATCHES))
    for name, (_, times) in MODELS.items():
        for k in (2, 4, 8):
            cases = [found[f"step_2_{name}_k{times * k}_t{a * b}"] for a, b in BATCHES]
            cells = [f"{speedup(c['measured_s'])} ({speedup(c['step_s'])})" for c in cases]
            print(f"| {name}, k = {times * k} | " + " | ".join(cells) + " |")


def main() -> None:
    if sys.argv[1] == "table":
        return table(sys.argv[2])
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (preset, times) in MODELS.items():
        for k in (2, 4, 8):
            for sequence, sequences in BATCHES:
                text = SCENARIO.format(
                    preset=preset, top_k=times * k, sequence=sequence, sequences=sequences
                )
                file = f"step_2_{name}_k{times * k}_t{sequence * sequences}.yaml"
                (folder / file).write_text(text)


if __name__ == "__main__":
    main()
