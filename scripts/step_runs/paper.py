"""The paper's question as whole steps of two GPUs: its model at base and doubled granularity, k and tokens small to large.

paper.py FOLDER: a scenario each, EP naive, EP by rank and HP, by headway's own host.
"""

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


def main() -> None:
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
