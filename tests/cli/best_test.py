#!/usr/bin/env python3
"""headway best on a shipped scenario: nothing in its space is faster, and it says so consistently.

usage: best_test.py HEADWAY SCENARIO.yaml
"""

import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""
KNOBS = ("group_size", "recompute", "zero1", "overlap_param_gather")
SCENARIO = ""


def headway(*words):
    return subprocess.run(
        [HEADWAY, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )


class Best(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def resolved(self, change=lambda text: text) -> Path:
        """The scenario written out, so that any of its values can be replaced."""
        path = self.folder / "scenario.yaml"
        path.write_text(change(headway("show", SCENARIO).stdout))
        return path

    def best(self, scenario, *words, code=0) -> dict:
        result = headway("best", scenario, "--format", "json", *words)
        self.assertEqual(result.returncode, code, result.stderr)
        return json.loads(result.stdout)

    def test_no_plan_of_the_scenario_is_faster(self):
        best = self.best(SCENARIO, "--no-break-even")
        predicted = json.loads(headway("predict", SCENARIO, "--format", "json").stdout)
        for plan in predicted["plans"]:
            self.assertLessEqual(best["fastest"]["step_time_s"], plan["step_time_s"] * (1 + 1e-12))
        for variant in best["variants"]:
            self.assertLessEqual(best["fastest"]["step_time_s"], variant["step_time_s"])
            self.assertTrue(variant["fits"])
        for other in best["other_choices"]:
            if other["fits"]:
                self.assertLessEqual(best["fastest"]["step_time_s"], other["step_time_s"])
        self.assertNotEqual(best["fastest"]["kind"], best["runner_up"]["kind"])
        phases = sum(best["fastest"]["phases_s"].values())
        self.assertAlmostEqual(phases, best["fastest"]["step_time_s"], places=9)

    def test_layouts_are_searched_and_written_as_flags(self):
        """More choices are never slower, and what wins is a plan that predict has the same time for."""
        plain = self.best(SCENARIO, "--no-break-even")
        layouts = self.best(SCENARIO, "--no-break-even", "--layouts")
        self.assertGreater(layouts["legal_plans"], plain["legal_plans"])
        self.assertLessEqual(
            layouts["fastest"]["step_time_s"], plain["fastest"]["step_time_s"] * (1 + 1e-12)
        )
        text = headway("best", SCENARIO, "--no-break-even", "--layouts").stdout
        self.assertRegex(text, "as Megatron flags: --tensor-model-parallel-size [0-9]+ ")
        self.assertRegex(text, "as torchtitan flags: .*--parallelism.expert_parallel_degree [0-9]+")

    def test_what_the_baseline_offloads_is_in_the_flags(self):
        with_host = self.folder / "scenario.yaml"
        with_host.write_text(
            "model: {preset: olmoe_1b_7b}\n"
            "cluster: {preset: dgx_h100, host: {bandwidth: 63 GB/s, memory_bandwidth: 600 GB/s}}\n"
            "batch: {sequence_length: 4096}\n"
            "profile: {preset: h100_public}\n"
            "plans:\n"
            "  - {name: ep, expert_parallel: {}, group_size: 8, zero1: true,\n"
            "     optimizer_cpu_offload: true, optimizer_offload_fraction: 0.5,\n"
            "     fine_grained_activation_offloading: true, offload_modules: [core_attn, attn_proj]}\n"
        )
        said = headway("best", with_host, "--no-break-even", "--layouts")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn(
            "--fine-grained-activation-offloading --offload-modules core_attn attn_proj",
            said.stdout,
        )
        self.assertIn("--optimizer-cpu-offload --optimizer-offload-fraction 0.5", said.stdout)
        self.assertIn("--use-precision-aware-optimizer", said.stdout)

    def test_layouts_cut_experts_where_their_width_divides(self):
        def legal_plans(width: int) -> int:
            wide = rf"\g<1>{width}"
            path = self.resolved(lambda text: re.sub(r"(expert_width: )\d+", wide, text))
            return self.best(path, "--no-break-even", "--layouts")["legal_plans"]

        self.assertGreater(legal_plans(1024), legal_plans(1025))

    def test_frameworks_are_searched_as_they_run(self):
        """In one piece a layer, and a copy a rank through the dispatcher that sends it."""
        megatron = self.resolved(
            lambda text: text.replace("implementation: fused", "implementation: megatron")
        )
        text = megatron.read_text()
        of_scenario = text[: text.index("profile:")]
        megatron.write_text(of_scenario + "profile: {preset: h200_layers}\n")
        result = headway("best", megatron, "--no-break-even")
        self.assertEqual(result.returncode, 2, "the profile has no host")
        self.assertIn("overheads.host_launch", result.stderr)
        text = of_scenario + "profile: {preset: h200_public}\n"
        megatron.write_text(text)
        variants = self.best(megatron, "--no-break-even")["variants"]
        self.assertEqual({variant["overlap_chunks"] for variant in variants}, {1})
        fastest = next(variant for variant in variants if variant.get("dedup") == "rank")
        for key in ("sequences_per_rank", "num_micro_batches"):
            text = re.sub(rf"(?m)^  {key}: .*", f"  {key}: {fastest[key]}", text)
        plan = {"name": "a", "implementation": "megatron"}
        plan |= {key: fastest[key] for key in KNOBS}
        plan["expert_parallel"] = {"dedup": "rank", "moe_token_dispatcher_type": "flex"}
        plans, profile = text.index("plans:"), text.index("profile:")
        alone = self.folder / "one.yaml"
        alone.write_text(f"{text[:plans]}plans:\n  - {json.dumps(plan)}\n{text[profile:]}")
        result = headway("predict", alone, "--format", "json")
        self.assertEqual(result.returncode, 0, result.stderr)
        again = json.loads(result.stdout)["plans"][0]
        self.assertAlmostEqual(again["step_time_s"], fastest["step_time_s"], places=9)

    def test_a_layer_of_multi_token_prediction_has_a_place_in_every_layout(self):
        """As many layouts are legal as without it; pairs (a rule of Megatron's) too, as it is one."""
        mtp = self.resolved(lambda text: re.sub(r"mtp_num_layers: 0", "mtp_num_layers: 1", text))
        words = ("--no-break-even", "--layouts")
        self.assertEqual(
            self.best(mtp, *words)["legal_plans"], self.best(SCENARIO, *words)["legal_plans"]
        )

    def test_the_answer_is_what_predict_says_of_that_plan(self):
        fastest = self.best(SCENARIO, "--no-break-even")["fastest"]
        self.assertNotIn("num_heads", fastest)
        text = Path(SCENARIO).read_text()
        head = text[: text.index("plans:")].replace(
            "batch: {sequence_length: 2048, sequences_per_rank: 8}",
            f"batch: {{sequence_length: 2048, sequences_per_rank: {fastest['sequences_per_rank']},"
            f" num_micro_batches: {fastest['num_micro_batches']}}}",
        )
        knobs = ", ".join(
            f"{key}: {json.dumps(fastest[key])}" for key in (*KNOBS, "overlap_chunks")
        ).replace('"', "")
        path = self.folder / "one.yaml"
        path.write_text(
            head
            + f"plans:\n  - {{name: a, expert_parallel: {{dedup: {fastest['dedup']}}}, {knobs}}}\n"
            + text[text.index("profile:") :].splitlines()[0]
            + "\n"
        )
        result = headway("predict", path, "--format", "json")
        self.assertEqual(result.returncode, 0, result.stderr)
        plan = json.loads(result.stdout)["plans"][0]
        self.assertAlmostEqual(plan["step_time_s"], fastest["step_time_s"], places=12)
        self.assertEqual(plan["memory"]["peak_bytes"], fastest["memory_peak_bytes"])

    def test_less_memory_costs_time_and_too_little_is_exit_1(self):
        steps = []
        for memory in ("80 GiB", "30 GiB", "24 GiB"):  # of which 3 GiB are reserve
            path = self.resolved(
                lambda text, m=memory: re.sub(r"\bmemory: \S+ \w+", f"memory: {m}", text)
            )
            best = self.best(path, "--no-break-even")["fastest"]
            self.assertLessEqual(best["memory_peak_bytes"], int(memory.split()[0]) * 2**30)
            steps.append(best["step_time_s"])
        self.assertEqual(steps, sorted(steps))
        self.assertLess(steps[0], steps[2])
        path = self.resolved(lambda text: re.sub(r"\bmemory: \S+ \w+", "memory: 1 GiB", text))
        result = headway("best", path)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("no plan fits", result.stdout)
        self.assertIn("the smallest", result.stdout)

    def test_threads_do_not_change_the_answer(self):
        one = headway("best", SCENARIO, "--threads", 1, "--format", "json").stdout
        self.assertEqual(one, headway("best", SCENARIO, "--threads", 5, "--format", "json").stdout)

    def test_a_crossing_is_where_the_families_change(self):
        result = self.best(SCENARIO)
        self.assertEqual(
            [b["key"] for b in result["break_even"]],
            ["model.moe.top_k", "cluster.nvlink.bandwidth", "routing.skew"],
        )
        link = result["break_even"][1]
        self.assertTrue(link["crossings"], "choose a scenario that has a crossing")
        crossing = link["crossings"][0]

        def faster(bandwidth):
            path = self.resolved(
                lambda text: text.replace("bandwidth: 450 GB/s", f"bandwidth: {bandwidth:.6g} B/s")
            )
            variants = self.best(path, "--no-break-even")["variants"]
            split = [v for v in variants if v["group_size"] > 1]
            return "EP" if split[0]["kind"] == "expert_parallel" else "HP"

        self.assertEqual(faster(crossing["value"] * 1.02), crossing["faster_from_there"])
        self.assertNotEqual(faster(crossing["value"] * 0.98), crossing["faster_from_there"])

    def test_heads_and_bad_input(self):
        variants = self.best(SCENARIO, "--heads", "2,16", "--no-break-even")["variants"]
        self.assertEqual({v.get("num_heads") for v in variants}, {None, 2, 16})
        for heads in ("0", "x", "4,,8", ""):
            result = headway("best", SCENARIO, f"--heads={heads}")
            self.assertEqual(result.returncode, 2)
            self.assertIn("--heads", result.stderr)

    def test_the_table_says_what_and_why(self):
        text = headway("best", SCENARIO).stdout
        for part in ("fastest:", "runner-up:", "why:", "every variant", "one other choice"):
            self.assertIn(part, text)
        self.assertRegex(text, r"never within|is the faster from")


if __name__ == "__main__":
    HEADWAY, SCENARIO = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1])
