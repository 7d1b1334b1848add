"""Draws models to judge the prediction of whole steps by.

draw.py SEED FOLDER: a scenario each, for one and two ranks.
draw.py SEED FOLDER again: with micro-batches, and every kind of recompute as a plan.
draw.py SEED FOLDER mixed: mostly two ranks, some with micro-batches, run by headway's own host.
draw.py SEED FOLDER graph: every other one small; by headway's own host, and as one CUDA graph where a step can be one.
draw.py SEED FOLDER small: two ranks, and steps so short that their host counts.
draw.py SEED FOLDER grouped: one rank, heads of q that share those of k and v and are as wide as the model or twice; as
graphs too.
"""

import random
import sys
from pathlib import Path

SCENARIO = """\
# Drawn by scripts/step_runs/draw.py {seed} before any step of it was run or looked at.
model:
  name: {name}
  vocab_size: {vocabulary}
  hidden: {hidden}
  num_layers: {layers}
{dense}  attention: {{num_heads: {heads}, num_kv_heads: {kv_heads}, head_width: {head_width}}}
  moe: {{num_experts: {experts}, top_k: {top_k}, expert_width: {width}, activation: gelu}}
  dtype: bf16
cluster: {{preset: dgx_h200, nodes: 1, gpus_per_node: {ranks}}}
batch: {{sequence_length: {sequence}, sequences_per_rank: {sequences}{micro_batches}}}
plans:
{plans}baseline: {baseline}
"""
DENSE = "  num_dense_layers: 1\n  dense_width: {}\n  dense_activation: gelu\n"
MAX_PARAMETERS = 2.5e9  # of all ranks: 18 bytes each
MAX_WORK = 6e14  # FLOPs of a rank's step, forward and backward
MAX_WORK_AGAIN = 1.2e14
MAX_TOKENS = 16384
# A small step: its host may take longer than its device.
SMALL_TOKENS = 1024
SMALL_PARAMETERS = 1.5e8
MAX_WORK_SMALL = 8e12
# Sets of models: how many of one and of two ranks, micro-batches in turn, FLOPs of a micro-batch.
SETS = {
    "": (((1, 8), (2, 14)), (1,), MAX_WORK),
    "again": (((1, 4), (2, 4)), (1, 4, 2, 4), MAX_WORK_AGAIN),
    "mixed": (((1, 2), (2, 14)), (1, 1, 2, 1, 4), MAX_WORK_AGAIN),
    "graph": (((1, 4), (2, 8)), (4, 1, 2, 1), MAX_WORK_AGAIN),
    "small": (((2, 12),), (1, 1, 2, 1, 4), MAX_WORK_SMALL),
    "grouped": (((1, 12),), (1, 2, 1), MAX_WORK_AGAIN),
}


def group_queries(random_: random.Random, case: dict) -> None:
    heads = case["hidden"] // case["head_width"]
    case["kv_heads"] = random_.choice([k for k in (1, 2, 4, 8) if heads % k == 0 and k < heads])
    case["heads"] = heads * random_.choice([1, 2])


def draw(random_: random.Random, ranks: int, max_work: float, small: bool) -> dict:
    max_tokens, max_parameters = (
        (SMALL_TOKENS, SMALL_PARAMETERS) if small else (MAX_TOKENS, MAX_PARAMETERS)
    )
    while True:
        hidden = random_.choice([512, 768, 1024, 1536, 2048])
        case = {
            "ranks": ranks,
            "hidden": hidden,
            "layers": random_.choice([2, 3, 4, 6, 8, 12, 16, 24]),
            "head_width": random_.choice([64, 128]),
            "experts": random_.choice([16, 24, 32, 48, 64, 96, 128]),
            "top_k": random_.choice([1, 2, 3, 4, 6, 8]),
            "width": 64 * random_.randint(4, 32),
            "vocabulary": random_.choice([8192, 16384, 32000, 50304]),
            "sequence": random_.choice([256, 512, 1024, 2048, 4096]),
            "sequences": random_.choice([1, 2, 3, 4, 6, 8]),
            "hp_heads": hidden // random_.choice([64, 128, 256]),
            "dense": random_.random() < 0.25,
        }
        case["heads"] = case["kv_heads"] = hidden // case["head_width"]
        tokens = case["sequence"] * case["sequences"]
        expert = 2 * hidden * case["width"]
        parameters = 2 * case["vocabulary"] * hidden + case["layers"] * (
            4 * hidden**2 + case["experts"] * expert
        )
        active = case["vocabulary"] * hidden + case["layers"] * (
            4 * hidden**2 + case["top_k"] * expert
        )
        fits = parameters < max_parameters and 6 * active * tokens < max_work
        if (
            fits
            and tokens <= max_tokens
            and (case["layers"] > 2 or not case["dense"])
            and case["hp_heads"] % ranks == 0
        ):
            return case


RECOMPUTE = {
    "": "",
    "_experts": ", recompute: moe",
    "_moe": ", recompute_granularity: selective, recompute_modules: [moe]",
    "_full": ", recompute: full",
}
WHOLE_STEP = ", cuda_graph_scope: [full_iteration]"


def plans_of(case: dict, kind_of_set: str) -> list[str]:
    again = kind_of_set == "again"
    graph = kind_of_set in ("graph", "grouped")
    host = ", implementation: headway" if graph or kind_of_set in ("mixed", "small") else ""
    kinds = {"ep_naive": "expert_parallel: {}"}
    if case["ranks"] > 1 and not graph:
        kinds["ep_rank"] = "expert_parallel: {dedup: rank}"
    kinds["hp"] = f"head_parallel: {{num_heads: {case['hp_heads']}}}"
    if graph:
        return [
            f"{kind}{suffix}, {layer}, group_size: {case['ranks']}{host}{scope}"
            for kind, layer in kinds.items()
            for suffix, scope in (("", ""), ("_graph", WHOLE_STEP))
            if not suffix or kind == "hp" or case["ranks"] == 1
        ]
    return [
        f"{kind}{suffix}, {layer}, group_size: {case['ranks']}{recompute}{host}"
        for kind, layer in kinds.items()
        for suffix, recompute in RECOMPUTE.items()
        if not suffix or (again and not (kind == "hp" and suffix == "_experts"))
    ]


def text(name: str, seed: int, case: dict, kind_of_set: str, micro_batches: int) -> str:
    plans = plans_of(case, kind_of_set)
    return SCENARIO.format(
        **case
        | {
            "name": name,
            "seed": seed,
            "micro_batches": f", num_micro_batches: {micro_batches}" if kind_of_set else "",
            "dense": DENSE.format(4 * case["hidden"]) if case["dense"] else "",
            "plans": "".join(f"  - {{name: {plan}}}\n" for plan in plans),
            "baseline": "ep_naive",
        }
    )


def main() -> None:
    seed, folder, kind_of_set = int(sys.argv[1]), Path(sys.argv[2]), (sys.argv[3:] or [""])[0]
    counts, batches, max_work = SETS[kind_of_set]
    random_ = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for ranks, count in counts:
        for number in range(count):
            name = f"step_{ranks}_{number + 1:02}"
            micro_batches = batches[number % len(batches)]
            small = kind_of_set == "graph" and number % 2 == 0
            case = draw(random_, ranks, max_work / micro_batches, small)
            if kind_of_set == "grouped":
                group_queries(random_, case)
            (folder / f"{name}.yaml").write_text(text(name, seed, case, kind_of_set, micro_batches))


if __name__ == "__main__":
    main()
