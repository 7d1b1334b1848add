#!/usr/bin/env python3
"""headway predict, show and list on a shipped scenario.

usage: predict_test.py HEADWAY SCENARIO.yaml
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HEADWAY = ""
SCENARIO = ""


def headway(*words):
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=60, check=False
    )


class Predict(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def predict(self, *words) -> str:
        result = headway("predict", SCENARIO, *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_table_has_every_plan_and_fits_a_hundred_columns(self):
        table = self.predict()
        plans = json.loads(self.predict("--format", "json"))["plans"]
        for plan in plans:
            self.assertIn(plan["name"], table)
        for words in ((), ("--verbose",)):
            lines = self.predict(*words).splitlines()
            # Warnings and notes are prose and may be longer.
            tables = [line for line in lines if not line.startswith(("warning:", "note:"))]
            self.assertLessEqual(max(map(len, tables)), 100)

    def test_phases_add_up_to_the_step(self):
        for plan in json.loads(self.predict("--format", "json"))["plans"]:
            total = sum(phase["time_s"] for phase in plan["phases"])
            self.assertAlmostEqual(total / plan["step_time_s"], 1.0, places=9, msg=plan["name"])
            low, high = plan["step_time_interval_s"]
            self.assertTrue(0 < low <= plan["step_time_s"] <= high)

    def test_memory_items_add_up_to_the_peak(self):
        for plan in json.loads(self.predict("--format", "json"))["plans"]:
            total = sum(plan["memory"]["items"].values())
            self.assertAlmostEqual(total / plan["memory"]["peak_bytes"], 1.0, places=9)

    def test_a_latent_layer_is_undecided_against_the_model_without(self):
        studies = Path(SCENARIO).parent / "studies"
        words = (studies / "rack_latent.yaml", "--against", studies / "rack_dense.yaml")
        result = headway("predict", *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?s)against ep of rack_dense.*ep: \d.\d\dx, undecided:")
        against = json.loads(headway("predict", *words, "--format", "json").stdout)["against"]
        self.assertTrue(against["plans"][0]["undecided"])

    def test_against_itself_speedups_are_those_over_the_baseline(self):
        answers = json.loads(self.predict("--against", SCENARIO, "--format", "json"))
        speedups = {plan["name"]: plan["speedup_vs_baseline"] for plan in answers["plans"]}
        for answer in answers["against"]["plans"]:
            self.assertAlmostEqual(answer["speedup"], speedups[answer["plan"]], places=9)

    def test_a_rival_that_cannot_be_read_is_refused(self):
        result = headway("predict", SCENARIO, "--against", "nowhere.yaml")
        self.assertEqual(result.returncode, 2)
        self.assertIn("nowhere.yaml", result.stderr)

    def test_what_a_rival_is_made_of_is_not_overwritten(self):
        studies = Path(SCENARIO).parent / "studies"
        cluster = self.folder / "cluster.yaml"
        text = (studies / "rack_dense.yaml").read_text()
        shipped = Path(SCENARIO).parent / "clusters" / "gb200_nvl72.yaml"
        cluster.write_text(shipped.read_text())
        rival = self.folder / "rival.yaml"
        rival.write_text(text.replace("preset: gb200_nvl72", "preset: ./cluster.yaml"))
        before = cluster.read_text()
        for kept in (rival, cluster):
            words = (studies / "rack_latent.yaml", "--against", rival, "--out", kept)
            result = headway("predict", *words)
            self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(cluster.read_text(), before)

    def test_the_baseline_has_speedup_one(self):
        result = json.loads(self.predict("--format", "json"))
        speedups = {plan["name"]: plan["speedup_vs_baseline"] for plan in result["plans"]}
        self.assertEqual(speedups[result["baseline"]], 1.0)

    def test_same_bytes_for_any_number_of_threads(self):
        one, four = (
            self.predict("--format", "json", "--samples", "8", "--threads", threads)
            for threads in ("1", "4")
        )
        self.assertEqual(one, four)

    def test_out_writes_what_standard_output_shows_and_leaves_nothing_else(self):
        for form in ("table", "json", "csv"):
            path = self.folder / f"result.{form}"
            self.assertEqual(self.predict("--format", form, "--out", str(path)), "")
            self.assertEqual(path.read_text(), self.predict("--format", form))
        self.assertEqual(len(list(self.folder.iterdir())), 3)

    def test_a_refused_out_keeps_the_old_file(self):
        result = headway("predict", SCENARIO, "--out", str(self.folder / "none" / "x"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("No such file or directory", result.stderr)

    def test_csv_ends_with_its_row_count(self):
        lines = self.predict("--format", "csv").splitlines()
        rows = [line for line in lines if line.startswith("predicted,")]
        self.assertGreater(len(rows), 0)
        self.assertEqual(lines[-1], f"# end: {len(rows)} rows")

    def test_one_plan_can_be_chosen_and_a_typo_is_explained(self):
        names = [plan["name"] for plan in json.loads(self.predict("--format", "json"))["plans"]]
        only = json.loads(self.predict("--format", "json", "--plan", names[-1]))["plans"]
        self.assertEqual([plan["name"] for plan in only], [names[-1]])
        result = headway("predict", SCENARIO, "--plan", names[-1] + "x")
        self.assertEqual(result.returncode, 2)
        self.assertIn(f"did you mean '{names[-1]}'?", result.stderr)

    def test_explain_answers_for_every_phase(self):
        plans = json.loads(self.predict("--format", "json"))["plans"]
        for plan in (plans[0], plans[-1]):
            for cost in plan["phases"]:
                words = ("--plan", plan["name"], "--phase", cost["phase"], "--pass", cost["pass"])
                result = headway("explain", SCENARIO, *words)
                self.assertEqual(result.returncode, 0, f"{words}: {result.stderr}")
                self.assertGreater(len(result.stdout.splitlines()), 2, words)

    def test_explain_bounds_a_product_by_the_peak_of_its_own_type(self):
        """qkv, T d (h + 2 h_kv) w products of two FLOPs: FP8's peak is twice bf16's."""
        bounds = {}
        for recipe in ("none", "tensorwise"):
            scenario = ROOT / "scenarios/anchors/cases/llama3_8b_gb300.yaml"
            text = scenario.read_text().replace("recipe: tensorwise", f"recipe: {recipe}")
            path = self.folder / f"{recipe}.yaml"
            path.write_text(text)
            result = headway("explain", str(path), "--plan", "fp8", "--phase", "attention_qkv")
            self.assertEqual(result.returncode, 0, result.stderr)
            found = re.search(r"lower bound +([0-9.]+) us \(device peak\)", result.stdout)
            bounds[recipe] = float(found[1])
        flops = 2 * 2 * 8192 * 4096 * (32 + 2 * 8) * 128
        self.assertAlmostEqual(bounds["none"], flops / 2500e12 * 1e6, delta=0.01)
        self.assertAlmostEqual(bounds["tensorwise"], flops / 5000e12 * 1e6, delta=0.01)

    def test_explain_lists_plans_and_phases_for_a_typo(self):
        result = headway("explain", SCENARIO, "--phase", "dispatch")
        self.assertEqual(result.returncode, 2)
        self.assertIn("no --plan given; accepted: ", result.stderr)
        plan = json.loads(self.predict("--format", "json"))["plans"][0]["name"]
        result = headway("explain", SCENARIO, "--plan", plan, "--phase", "dispach")
        self.assertEqual(result.returncode, 2)
        self.assertIn("did you mean 'dispatch'?", result.stderr)

    def test_a_profile_of_another_device_is_warned_about(self):
        self.assertEqual(headway("predict", SCENARIO).stderr, "")
        result = headway("predict", SCENARIO, "--profile", "a100_public")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stderr, r"\Aheadway: warning: profile .*A100.*H200.*\n\Z")

    def test_show_is_a_fixed_point_that_predicts_the_same(self):
        shown = self.folder / "shown.yaml"
        self.assertEqual(headway("show", SCENARIO, "--out", str(shown)).returncode, 0)
        again = headway("show", str(shown))
        self.assertEqual(again.returncode, 0, again.stderr)
        without_comments = [
            [line for line in text.splitlines() if not line.startswith("#")]
            for text in (shown.read_text(), again.stdout)
        ]
        self.assertEqual(without_comments[0], without_comments[1])
        ours, theirs = (
            json.loads(headway("predict", str(path), "--format", "json").stdout)["plans"]
            for path in (SCENARIO, shown)
        )
        self.assertEqual(ours, theirs)

    def test_everything_listed_can_be_shown(self):
        for kind in ("models", "clusters", "profiles"):
            lines = headway("list", kind).stdout.splitlines()[1:]
            names = [line.split()[0] for line in lines]
            self.assertGreater(len(names), 0, kind)
            for name in names:
                result = headway("show", f"{kind}/{name}")
                self.assertEqual(result.returncode, 0, f"{kind}/{name}: {result.stderr}")

    def test_figures_are_drawn(self):
        path = self.folder / "r.json"
        self.predict("--format", "json", "--out", str(path))
        if headway("plot", "--figure", "list").returncode != 0:
            self.skipTest("no Python with matplotlib")
        for figure in ("phases", "memory", "traffic"):
            for ending, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
                drawn = self.folder / (figure + ending)
                result = headway("plot", str(path), "--figure", figure, "-o", str(drawn))
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(drawn.read_bytes()[: len(magic)], magic)

    def test_a_report_is_one_page_with_every_plan_and_no_other_file(self):
        page = self.folder / "report.html"
        result = headway("report", SCENARIO, "-o", str(page))
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        text = page.read_text(encoding="utf-8")
        for expected in ("ep_naive", "hp", "grad_all_reduce", "<svg", "Assumptions", "</html>"):
            self.assertIn(expected, text)
        self.assertNotRegex(text, r"""(src|href)=["'](?!#)""")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["report.html"])

    def test_a_plan_that_the_profile_cannot_price_leaves_the_others(self):
        # These profiles know no fused experts, which HP needs: EP is answered, HP named, and the exit code is 1. Eight MI300X or
        # MI355X have a link between each pair, all of which an exchange uses.
        for cluster, profile, link in (
            ("8x_l40s_pcie", "l40s_public", "pcie"),
            ("mi300x", "mi300x_public", "nvlink_pair"),
            ("mi355x", "mi355x_public", "nvlink_pair"),
        ):
            with self.subTest(cluster):
                self.check_that_only_ep_is_priced(cluster, profile, link)

    def check_that_only_ep_is_priced(self, cluster, profile, link):
        scenario = self.folder / f"{cluster}.yaml"
        scenario.write_text(
            "model: {preset: paper_base}\n"
            f"cluster: {{preset: {cluster}}}\n"
            "batch: {sequence_length: 2048}\n"
            "plans:\n"
            "  - {name: ep, expert_parallel: {}, group_size: 8}\n"
            "  - {name: hp, head_parallel: {num_heads: 8}, group_size: 8}\n"
            f"profile: {{preset: {profile}}}\n"
        )
        for words in (["predict", scenario], ["simulate", scenario, "--epsilon", "0.1"]):
            result = headway(*words, "--format", "json")
            self.assertEqual(result.returncode, 1, result.stderr)
            answer = json.loads(result.stdout)
            self.assertEqual([plan["name"] for plan in answer["plans"]], ["ep"])
            self.assertIn(f"plan hp has no price: profile {profile}: no curve for", result.stderr)
        links = {row["name"].split(":")[0] for row in answer["plans"][0]["links"]}
        self.assertTrue(any(kind.startswith(link) for kind in links), links)
        unpriced = json.loads(headway("predict", scenario, "--format", "json").stdout)["unpriced"]
        self.assertIn("fused_expert", unpriced[0]["because"])
        alone = headway("predict", scenario, "--plan", "hp")
        self.assertEqual(alone.returncode, 2, alone.stdout)

    def test_infeasible_plans_exit_with_one(self):
        shown = headway("show", SCENARIO).stdout
        # The GPU's memory is the only bare "memory:" of a scenario.
        lines = [
            line.split("memory:")[0] + "memory: 1 MiB"
            if line.strip().startswith("memory:")
            else line
            for line in shown.splitlines()
        ]
        tiny = self.folder / "tiny.yaml"
        tiny.write_text("\n".join(lines) + "\n")
        result = headway("predict", str(tiny))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("infeasible: ", result.stdout)


if __name__ == "__main__":
    HEADWAY, SCENARIO = sys.argv.pop(1), os.path.abspath(sys.argv.pop(1))
    unittest.main()
