#!/usr/bin/env python3
"""No key of a scenario is ignored in silence: every key of the schema, changed in scenarios of EP, HP and HP x EP, changes a
number of predict or of simulate, or is named in a note, a warning or a refusal.

usage: keys_test.py HEADWAY SCHEMA.json
"""

import copy
import json
import re
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HEADWAY = ""
SCHEMA = {}

LABELS = {"name", "source", "preset"}  # told, not counted with
BOUNDS = {"peak_matmul"}  # of `explain`: a lower bound
SYNONYMS = {"fp16": "bf16"}  # of the same bytes and, by definition, the same rates
DEFAULTS = {("routing", "skew", "kind"): "none"}  # of keys whose map may be left out
# The first names of keys with a second one, and what they are by default: both may stand only with one value.
FIRST_NAMES = {
    ("batch", "micro_batch_size"): (("batch", "sequences_per_rank"), 1),
    ("batch", "global_batch_size"): (("batch", "num_micro_batches"), 1),
    ("plans", 0, "zero1"): (
        ("plans", 0, "parallel", "data_parallel_sharding_strategy"),
        "no_shard",
    ),
    ("plans", 0, "overlap_grad_reduce"): (("plans", 0, "overlap_grad_all_reduce"), True),
    ("plans", 0, "parallel", "expert_model_parallel_size"): (("plans", 0, "group_size"), 1),
}
MODEL = {
    "name": "m",
    "vocab_size": 1024,
    "hidden": 1024,
    "num_layers": 4,
    "attention": {"num_heads": 8, "num_kv_heads": 4, "head_width": 128},
    "moe": {"num_experts": 32, "top_k": 4, "expert_width": 512},
}
LATENT = {"query_rank": 256, "kv_rank": 128, "nope_width": 64, "rope_width": 32, "value_width": 64}
CLUSTER = {
    "name": "c",
    "device": {
        "name": "NVIDIA H100 80GB HBM3",
        "peak_matmul": "989 TFLOP/s",
        "memory_bandwidth": "3.35 TB/s",
        "memory": "80 GB",
    },
    "nodes": 2,
    "gpus_per_node": 4,
    "nvlink": {"domain": 4, "bandwidth": "450 GB/s", "latency": "2 us"},
    "fabric": {
        "nics_per_node": 4,
        "nic": "50 GB/s",
        "nodes_per_leaf": 1,
        "oversubscription": 2,
        "nic_latency": "5 us",
        "spine_latency": "6 us",
    },
    "link_overrides": [{"link": "nic:1", "bandwidth_factor": 0.9}],
    "rank_overrides": [{"rank": 1, "compute_factor": 0.9}],
}
CORE = {"leaves_per_pod": 2, "oversubscription": 3, "uplinks_per_pod": 2, "latency": "8 us"}
PAIRS = {"leaves_per_pod": 1, "pair_bandwidth": "20 GB/s", "latency": "8 us"}
MESH = {
    "tensor_model_parallel_size": 2,
    "sequence_parallel": True,
    "context_parallel_size": 2,
    "data_parallel_sharding_strategy": "optim",
}
HOST = {
    "bandwidth": "50 GB/s",
    "node_bandwidth": "150 GB/s",
    "memory_bandwidth": "400 GB/s",
    "memory": "2 TB",
}
PCIE = {
    "bandwidth": "25 GB/s",
    "gpus_per_switch": 2,
    "root_bandwidth": "25 GB/s",
    "latency": "5 us",
}


def scenario(plans, model=None, cluster=None, routing=None):
    return {
        "model": {**copy.deepcopy(MODEL), **(model or {})},
        "cluster": {**copy.deepcopy(CLUSTER), **(cluster or {})},
        "batch": {"sequence_length": 1024, "sequences_per_rank": 2, "num_micro_batches": 2},
        "routing": routing or {},
        "plans": plans,
        "profile": {"preset": "h100_public"},
    }


def scenarios():
    ep = {"name": "ep", "expert_parallel": {}, "group_size": 8}
    dense = {"num_dense_layers": 1, "dense_width": 2048}
    shared = {**MODEL["moe"], "num_shared_experts": 1, "shared_expert_width": 256}
    pcie = {
        k: v for k, v in CLUSTER.items() if k not in ("nvlink", "link_overrides", "rank_overrides")
    }
    whole = scenario([{**ep, "overlap_chunks": 2}], {**dense, "moe": shared})
    on_pcie = scenario([ep])
    on_pcie["cluster"] = {**copy.deepcopy(pcie), "pcie": PCIE, "nodes": 1}
    on_pcie["profile"] = {"preset": "l40s_pcie_public"}
    return {
        "ep": whole,
        "ep of latent attention": scenario(
            [ep], {"attention": {**MODEL["attention"], "latent": LATENT}}
        ),
        "ep over three tiers": scenario(
            [{**ep, "group_size": 16}],
            cluster={"nodes": 4, "fabric": {**CLUSTER["fabric"], "core": CORE}},
        ),
        "ep over a dragonfly": scenario(
            [{**ep, "group_size": 16}],
            cluster={
                "nodes": 4,
                "fabric": {**CLUSTER["fabric"], "nodes_per_leaf": 1, "core": PAIRS},
            },
        ),
        "ep on one leaf": scenario(
            [ep],
            cluster={"fabric": {**CLUSTER["fabric"], "nodes_per_leaf": 0, "oversubscription": 1}},
        ),
        "ep on each rank": scenario([{"name": "ep", "expert_parallel": {}, "group_size": 1}]),
        "hp": scenario([{"name": "hp", "head_parallel": {"num_heads": 8}, "group_size": 8}], dense),
        "mesh": scenario([{**ep, "group_size": 4, "parallel": MESH}], dense),
        "two levels of context": scenario(
            [
                {
                    **ep,
                    "parallel": {
                        "context_parallel_size": 4,
                        "cp_comm_type": "a2a+p2p",
                        "hierarchical_context_parallel_sizes": [2, 2],
                    },
                }
            ]
        ),
        "hp x ep": scenario(
            [{"name": "hp", "head_parallel": {"num_heads": 4}, "group_size": 8}],
            routing={"skew": {"kind": "zipf", "exponent": 0.7}},
        ),
        "modules computed again": scenario(
            [{**ep, "recompute_granularity": "selective", "recompute_modules": ["moe_act"]}]
        ),
        "layers computed again": scenario(
            [{**ep, "recompute_granularity": "full", "recompute_num_layers": 2}]
        ),
        "optimizer on the host": scenario(
            [
                {
                    **ep,
                    "group_size": 4,
                    "parallel": {"data_parallel_sharding_strategy": "optim"},
                    "optimizer_cpu_offload": True,
                }
            ],
            cluster={"host": HOST},
        ),
        "activations on the host": scenario(
            [
                {
                    **ep,
                    "fine_grained_activation_offloading": True,
                    "offload_modules": ["core_attn", "expert_fc1"],
                }
            ],
            cluster={"host": HOST},
        ),
        "layers on the host": scenario(
            [{**ep, "cpu_offloading_num_layers": 2, "recompute": "none"}], cluster={"host": HOST}
        ),
        "expectation": scenario(
            [{**ep, "expert_parallel": {"dedup": "rank"}}], routing={"noise": False}
        ),
    }


def leaves(node, path=()):
    """(path, schema) of every key that holds a value; lists stand for their first entry."""
    if "$ref" in node:
        yield from leaves(SCHEMA["definitions"][node["$ref"].rsplit("/", 1)[1]], path)
    elif "properties" in node:
        for key, value in node["properties"].items():
            yield from leaves(value, (*path, key))
    elif node.get("type") == "array" and "properties" in node.get("items", {}):
        yield from leaves(node["items"], (*path, 0))
    elif "anyOf" in node and any("$ref" in option for option in node["anyOf"]):
        yield from leaves(next(option for option in node["anyOf"] if "$ref" in option), path)
    else:
        yield path, node


def get(tree, path):
    for key in path:
        if isinstance(tree, list):
            if key >= len(tree):
                return None
        elif not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def with_value(tree, path, value):
    tree = copy.deepcopy(tree)
    at = tree
    for key, below in zip(path[:-1], path[1:], strict=True):
        if isinstance(at, list):
            while len(at) <= key:
                at.append({})
        elif at.get(key) is None:
            at[key] = [] if below == 0 else {}
        at = at[key]
    at[path[-1]] = value
    return tree


def without(tree, path):
    tree = copy.deepcopy(tree)
    get(tree, path[:-1] if get(tree, path[:-1]) is not None else ()).pop(path[-1], None)
    return tree


def values(now, schema):
    """Other values of a key, some of which the reader may refuse."""
    choices = schema.get("enum") or [v for o in schema.get("anyOf", []) for v in o.get("enum", [])]
    usual = re.search(r"Default: (\S+)$", schema.get("description", ""))
    if choices:
        was = (now, usual and usual[1])
        return [c for c in choices if c not in was and SYNONYMS.get(c, c) not in was]
    if isinstance(now, bool) or schema.get("type") == "boolean":
        was = now if isinstance(now, bool) else bool(usual) and usual[1] == "true"
        return [not was]
    if isinstance(now, (int, float)):
        return [now * 2, now * 4, now / 2 if isinstance(now, float) else max(1, now // 2), now + 1]
    if isinstance(now, str) and now[:1].isdigit():
        number, unit = now.split(" ", 1)
        return [f"{float(number) / 20:g} {unit}", f"{float(number) * 2000:g} {unit}"]
    if now is not None:
        return []
    types = schema.get("type", "")
    others = [2, 1, 3, 64] if "integer" in types else [0.5, 2]
    if "string" in types:
        others = ["1 GB/s", "1 ms"]
    return [value for value in others if not usual or str(value) != usual[1]]


def run(verb, file):
    done = subprocess.run(
        [HEADWAY, verb, str(file), "--format", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode not in (0, 1):
        return None, done.stderr
    result = json.loads(done.stdout)
    said = " ".join([*result.get("notes", []), done.stderr])
    plans = result["plans"]
    for plan in plans:
        said += " ".join(plan.pop("warnings", []))
        for key in ("cpu_s", "simulation_cpu_s", "wall_s", "seed"):
            plan.pop(key, None)
    return plans, said


class Keys(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.count = 0

    def both(self, tree, tag):
        file = self.folder / f"{tag}.yaml"
        file.write_text(json.dumps(tree))
        return file

    def now(self, tree, path):
        if path in FIRST_NAMES:
            first, usual = FIRST_NAMES[path]
            value = get(tree, first)
            value = usual if value is None else value
            return value != "no_shard" if path[-1] == "zero1" else value
        value = get(tree, path)
        return DEFAULTS.get(path) if value is None else value

    def silent(self, base, tree, path, schema, tag):
        """Why the key is ignored in silence, or nothing."""
        tried = []
        now = self.now(tree, path)
        if path in FIRST_NAMES:
            tree = without(tree, FIRST_NAMES[path][0])
        for i, value in enumerate(values(now, schema)):
            file = self.both(with_value(tree, path, value), f"{tag}_{i}")
            plans, said = run("predict", file)
            if plans is None:
                continue  # refused
            if plans != base["predict"] or str(path[-1]) in said:
                return None
            simulated, said = run("simulate", file)
            if simulated != base["simulate"] or str(path[-1]) in said:
                return None
            tried.append(value)
        return tried or None  # None: whatever was not refused was counted with

    def test_every_key_changes_a_number_or_is_named(self):
        failures, count = [], 0
        paths = [
            (path, schema)
            for path, schema in leaves(SCHEMA)
            if path[0] not in ("profile", "sweep", "name") and path[-1] not in LABELS | BOUNDS
        ]
        self.assertGreater(len(paths), 70)
        with ThreadPoolExecutor(4) as pool:
            for index, (name, tree) in enumerate(scenarios().items()):
                file = self.both(tree, f"base_{index}")
                base = {verb: run(verb, file) for verb in ("predict", "simulate")}
                for verb, (plans, said) in base.items():
                    self.assertIsNotNone(plans, f"{name}, {verb}: {said}")
                base = {verb: plans for verb, (plans, _) in base.items()}
                jobs = [
                    (path, pool.submit(self.silent, base, tree, path, schema, f"{index}_{i}"))
                    for i, (path, schema) in enumerate(paths)
                ]
                for path, job in jobs:
                    count += 1
                    if job.result() is not None:
                        failures.append(
                            f"{name}: {'.'.join(map(str, path))} = {job.result()}: no number changes, nothing is said"
                        )
        print(f"{count} keys changed")
        self.assertEqual(failures, [], "\n" + "\n".join(failures))


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    SCHEMA = json.loads(Path(sys.argv.pop(1)).read_text())
    unittest.main()
