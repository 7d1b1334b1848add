"""The paper's question as whole steps of two GPUs: its model at base and doubled granularity, k and tokens small to large.

paper.py FOLDER: a scenario each, EP naive, EP by rank and HP, by headway's own host.
paper.py FOLDER graph: at few tokens, HP as one CUDA graph too.
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
{graph}baseline: ep_naive
"""
# k of the doubled model is twice that of the base one, as its experts are half as wide.
MODELS = {"base": ("paper_base", 1), "double": ("paper_double_granularity", 2)}
BATCHES = [(512, 1), (2048, 2), (2048, 8)]
GRAPH = "  - {name: hp_graph, head_parallel: {num_heads: 8}, group_size: 2, implementation: headway, cuda_graph_scope: [full_iteration]}\n"


def speedup(times: dict[str, float], hp: str) -> str:
    """Over EP naive and over EP by rank."""
    return " and ".join(f"{times[ep] / times[hp]:.2f}" for ep in ("ep_naive", "ep_rank"))


def table(judged: str) -> None:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in csv.DictReader(Path(judged).open()):
        for column in ("measured_s", "step_s"):
            times = found.setdefault(row["case"], {}).setdefault(column, {})
            times[row["plan"]] = float(row[column])
    batches = [(a, b) for a, b in BATCHES if f"step_2_base_k2_t{a * b}" in found]
    plans = next(iter(found.values()))["step_s"]
    columns = [(a * b, hp) for a, b in batches for hp in ("hp", "hp_graph") if hp in plans]
    heads = [f"{t} tokens a rank{', graph' if hp != 'hp' else ''}" for t, hp in columns]
    print("| | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(columns))
    for name, (_, times) in MODELS.items():
        for k in (2, 4, 8):
            cases = [(found[f"step_2_{name}_k{times * k}_t{t}"], hp) for t, hp in columns]
            cells = [
                f"{speedup(c['measured_s'], hp)} ({speedup(c['step_s'], hp)})" for c, hp in cases
            ]
            print(f"| {name}, k = {times * k} | " + " | ".join(cells) + " |")


def main() -> None:
    if sys.argv[1] == "table":
        return table(sys.argv[2])
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    graph = sys.argv[2:] == ["graph"]
    for name, (preset, times) in MODELS.items():
        for k in (2, 4, 8):
            for sequence, sequences in BATCHES[:2] if graph else BATCHES:
                text = SCENARIO.format(
                    preset=preset,
                    top_k=times * k,
                    sequence=sequence,
                    sequences=sequences,
                    graph=GRAPH if graph else "",
                )
                file = f"step_2_{name}_k{times * k}_t{sequence * sequences}.yaml"
                (folder / file).write_text(text)


if __name__ == "__main__":
    main()
