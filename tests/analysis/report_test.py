#!/usr/bin/env python3
"""The page of `headway report` without a browser: it is whole without script, and asks nobody for anything.

usage: report_test.py HEADWAY
"""

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from page_text import Page, numbers_of

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "analysis/report.py"
HEADWAY = ""
PAPER = "scenarios/paper_4gpu.yaml"
PIPELINES = "scenarios/studies/qwen3_235b_256h100.yaml"  # stages, ranks, hidden exchanges
NASTY = "<b>&\"'</script><script>alert(1)</script> {x}"


def headway(*words):
    return subprocess.run([HEADWAY, *map(str, words)], cwd=ROOT, capture_output=True, text=True)


def report(*words):
    """Without site packages: a page needs Python alone."""
    command = [sys.executable, "-S", SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def plan(name: str, forward: float, backward: float, high: float) -> dict:
    """Two phases, and a step that is their sum."""
    return {
        "name": name,
        "feasible": True,
        "infeasible_because": "",
        "step_time_s": forward + backward,
        "step_time_interval_s": [forward, high],
        "tokens_per_s_per_gpu": 1.0,
        "model_tflops_per_gpu": 1.0,
        "speedup_vs_baseline": 1.0,
        "moe_layer": {"forward_s": forward, "backward_s": backward},
        "phases": [
            {"phase": "expert", "pass": "forward", "time_s": forward},
            {"phase": "dispatch", "pass": "backward", "time_s": backward},
        ],
        "traffic": {
            "sent_bytes_per_rank_mean": 1.0,
            "sent_bytes_per_rank_max": 1.0,
            "by_link": {},
            "imbalance": 1.0,
        },
        "memory": {"peak_bytes": 2.0**30, "items": {"logits": 2.0**30}, "capacity_bytes": 2.0**31},
        "warnings": [],
    }


def prediction(*plans: dict, **more) -> dict:
    names = {"scenario": "by hand", "profile": "p", "seed": 7, "version": "0", "notes": []}
    return {**names, "baseline": plans[0]["name"] if plans else "", "plans": list(plans), **more}


def sweep(rows: list[str]) -> str:
    """Over one axis, k."""
    columns = "k,plan,layer,source,status,step_time_s,step_low_s,step_high_s,speedup_vs_baseline,"
    columns += "sent_bytes_max,memory_peak_bytes,memory_capacity_bytes"
    lines = ["# headway sweep 1", "# scenario: by hand", columns, *rows, f"# end: {len(rows)} rows"]
    return "".join(line + "\n" for line in lines)


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.shared = Path(cls.temporary.name)
        cls.data, cls.pages = {}, {}
        for scenario in (PAPER, PIPELINES):
            result = cls.shared / "prediction.json"
            made = headway("predict", scenario, "--format", "json", "-o", result)
            assert made.returncode == 0, made.stderr
            cls.data[scenario] = json.loads(result.read_text())
            page = cls.shared / f"{Path(scenario).stem}.html"
            done = report(result, "-o", page)
            assert done.returncode == 0, done.stderr
            cls.pages[scenario] = page.read_text(encoding="utf-8")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, content) -> Path:
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def page(self, data: dict, *words) -> tuple[Page, str]:
        out = self.folder / "page.html"
        done = report(self.write("data.json", data), *words, "-o", out)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        text = out.read_text(encoding="utf-8")
        return Page(text), text

    def refused(self, message: str, *words):
        done = report(*words, "-o", self.folder / "refused.html")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertFalse((self.folder / "refused.html").exists())

    def test_every_number_of_the_prediction_is_in_the_page(self):
        for scenario, data in self.data.items():
            page = Page(self.pages[scenario])
            missing = set(numbers_of(data)) - set(page.numbers)
            self.assertEqual(missing, set(), scenario)

    def test_numbers_stand_in_the_rows_of_their_plan(self):
        for scenario, data in self.data.items():
            tables = Page(self.pages[scenario]).tables
            for index, one in enumerate(data["plans"]):
                rows = tables[f"plan-{index}-phases"][1:]
                self.assertEqual(len(rows), len(one["phases"]))
                for row, phase in zip(rows, one["phases"], strict=True):
                    self.assertEqual(row.cells[0].text, phase["phase"])
                    self.assertEqual(sorted(row.numbers), sorted(numbers_of(phase)))
                for row, rank in zip(
                    tables.get(f"plan-{index}-ranks", [])[1:],
                    one.get("pipeline", {}).get("ranks", []),
                    strict=True,
                ):
                    self.assertLessEqual(set(numbers_of(rank)), set(row.numbers))

    def test_columns_of_plans_hold_their_times(self):
        data = self.data[PAPER]
        head, *rows = Page(self.pages[PAPER]).tables["phases"]
        for one in data["plans"]:
            column = [cell.text for cell in head.cells].index(one["name"])
            times = {(p["phase"], p["pass"]): p["time_s"] for p in one["phases"]}
            for row in rows[:-3]:
                expected = times.pop((row.cells[0].text, row.cells[1].text), None)
                self.assertEqual(row.cells[column].numbers, [expected] if expected else [])
            self.assertEqual(times, {})
            # The three sums of passes are the step.
            total = sum(row.cells[column].numbers[0] for row in rows[-3:])
            self.assertAlmostEqual(total, one["step_time_s"], places=12)

    def test_the_page_refers_to_nothing_outside_and_ids_are_unique(self):
        for text in self.pages.values():
            page = Page(text)
            ids = page.values("id")
            self.assertEqual(len(ids), len(set(ids)))
            for attribute in ("src", "href", "srcset", "action", "style", "onclick", "onload"):
                self.assertEqual(page.values(attribute), [], attribute)
            for attribute in ("aria-labelledby", "for"):
                self.assertLessEqual(set(page.values(attribute)), set(ids))
            patterns = re.findall(r"url\(#([^)]*)\)", text)
            self.assertGreater(len(patterns), 0)
            self.assertEqual(len(patterns), text.count("url("))
            self.assertLessEqual(set(patterns), set(ids))
            self.assertNotIn("@import", text)
            self.assertNotRegex(text, r"\b(eval|fetch|XMLHttpRequest|Function|import)\s*\(")
            self.assertNotIn("://", text)

    def test_the_policy_allows_this_style_and_this_script_alone(self):
        page = Page(self.pages[PAPER])
        policy = next(f["content"] for t, f in page.elements if t == "meta" and "http-equiv" in f)
        allowed = [
            f"{kind}-src 'sha256-{self.hash_of(page, kind)}'" for kind in ("style", "script")
        ]
        expected = ["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"]
        self.assertEqual(policy, "; ".join(expected))

    def hash_of(self, page: Page, tag: str) -> str:
        (text,) = page.texts[tag]
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    def test_what_only_a_script_can_use_is_hidden_and_labelled(self):
        page = Page(self.page_with_sweep()[1])
        forms = [found for tag, found in page.elements if tag == "form"]
        self.assertEqual(["hidden" in form for form in forms], [True, True])
        self.assertEqual([tag for tag, _ in page.elements if tag == "button"], [])
        named = page.values("for")
        for tag, found in page.elements:
            if tag == "select" or (tag == "input" and found["type"] == "range"):
                self.assertIn(found["id"], named)
            if tag == "details" and "data-plan" in found:
                self.assertIn("open", found)

    def test_model_and_cluster_stand_in_front(self):
        page = Page(self.pages[PAPER])
        self.assertEqual(page.texts["h1"], ["paper_base on 4x H200: one training step"])
        for expected in ("NVIDIA H200", "h200_measured"):
            self.assertIn(expected, page.texts["dd"])
        # A result of an older version names neither.
        self.assertIn("by hand", self.page(prediction(plan("ep", 1, 1, 2)))[0].texts["h1"][0])

    def test_widths_of_a_timeline(self):
        # Forward 4 ms, backward 6 ms; the axis ends with the interval, at 12 ms: 4/12, then 6/12 from 4/12 on.
        page = self.page(prediction(plan("ep", 0.004, 0.006, 0.012)))[0]
        bars = [f for tag, f in page.elements if tag == "rect" and f.get("height") == "30"]
        self.assertEqual(
            [(bar.get("x"), bar["width"]) for bar in bars],
            [("0.000%", "33.333%"), ("33.333%", "50.000%"), (None, "83.333%")],
        )
        # An interval up to 100 ms would leave nothing to see: the axis ends at 1.4 steps, 14 ms.
        page = self.page(prediction(plan("ep", 0.004, 0.006, 0.1)))[0]
        bars = [f for tag, f in page.elements if tag == "rect" and f.get("height") == "30"]
        self.assertEqual(bars[0]["width"], "28.571%")

    def test_names_are_text(self):
        one = plan(NASTY, 1, 1, 2) | {"warnings": [NASTY], "feasible": False}
        one |= {"infeasible_because": NASTY}
        one["memory"]["items"] = {NASTY: 1.0}
        one["traffic"]["by_link"] = {NASTY: 1.0}
        names = dict.fromkeys(("scenario", "profile", "version", "model", "cluster"), NASTY)
        unpriced = [{"name": NASTY, "because": NASTY}]
        data = prediction(one, notes=[NASTY], unpriced=unpriced, **names)
        page, text = self.page(data, "--scenario", self.write("s.yaml", NASTY))
        self.assertEqual([tag for tag, _ in page.elements].count("script"), 1)
        self.assertEqual(page.texts["pre"], [NASTY])
        self.assertEqual(page.texts["h1"], [f"{NASTY} on {NASTY}: one training step"])
        self.assertIn(NASTY, page.values("data-plan"))
        self.assertNotIn("alert(1)</script>", text)
        self.assertIn("No plan fits into memory.", page.texts["b"])

    def test_keys_of_later_versions_do_no_harm(self):
        one = plan("ep", 1, 1, 2)
        one["phases"][0] |= {"later": {"an": "object"}, "list": [1, 2, 3]}
        page, _ = self.page(prediction(one, later=[1]))
        self.assertNotIn("later", [cell.text for cell in page.tables["plan-0-phases"][0].cells])

    def test_a_rival_stands_beside_the_plans(self):
        rival = {"scenario": "other", "plan": "hp", "tokens_per_s": 5.0, "feasible": True}
        rival["plans"] = [{"plan": "ep", "speedup": 1.25, "undecided": False}]
        page, _ = self.page(prediction(plan("ep", 1, 1, 2), against=rival))
        row = page.tables["rival"][1]
        self.assertEqual([cell.text for cell in row.cells], ["ep", "1.25x", "no"])

    def page_with_sweep(self) -> tuple[list[dict], str]:
        results = self.folder / "sweep.csv"
        axes = (
            "--axis",
            "model.moe.top_k=2,4",
            "--axis",
            "cluster.nvlink.bandwidth=100..300:100 GB/s",
        )
        made = headway("sweep", PAPER, *axes, "-o", results)
        self.assertEqual(made.returncode, 0, made.stderr)
        page = self.folder / "report.html"
        done = headway("report", PAPER, "--sweep", results, "-o", page)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        lines = [line for line in results.read_text().splitlines() if not line.startswith("#")]
        return list(csv.DictReader(lines)), page.read_text(encoding="utf-8")

    def test_every_row_of_a_sweep_is_a_row_of_the_page(self):
        points, text = self.page_with_sweep()
        page = Page(text)
        rows = page.tables["sweep"][1:]
        self.assertEqual(len(rows), 6 * len(self.data[PAPER]["plans"]))
        for point, row in zip(points, rows, strict=True):
            self.assertEqual(row.cells[0].text, point["plan"])
            numbers = [float(t) for t in point.values() if re.fullmatch(r"[0-9.e+-]+", t)]
            self.assertEqual(sorted(row.numbers), sorted(numbers))
            self.assertIn(point["cluster.nvlink.bandwidth"], [cell.text for cell in row.cells])
        ranges = [found for tag, found in page.elements if found.get("type") == "range"]
        self.assertEqual([one["data-axis"] for one in ranges], list(points[0])[:2])
        self.assertEqual(json.loads(ranges[1]["data-values"]), ["100 GB/s", "200 GB/s", "300 GB/s"])
        self.assertEqual([one["max"] for one in ranges], ["1", "2"])
        # The fastest axis is the last one of the sweep.
        marks = list(dict.fromkeys(row.attributes["data-point"] for row in rows))
        self.assertEqual(marks, ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"])

    def test_bad_input_is_refused_in_one_line(self):
        good = self.write("good.json", prediction(plan("ep", 1, 1, 2)))
        whole = sweep(["1,ep,expert_parallel,predicted,ok,1,1,1,1,1,1,1"])
        self.assertEqual(
            self.page(json.loads(good.read_text()), "--sweep", self.write("s.csv", whole))[0]
            .tables["sweep"][1]
            .cells[0]
            .text,
            "ep",
        )
        for message, text in (
            (
                "a sweep of 'another'; accepted: one of 'by hand'",
                whole.replace("by hand", "another"),
            ),
            ("0 rows; accepted: 1 to 5000", sweep([])),
            ("its end mark is missing", whole.replace("# end: 1 rows\n", "")),
            ("step_time_s: 'x'; accepted: a number", whole.replace("ok,1", "ok,x")),
            ("not the CSV of headway sweep", good.read_text()),
        ):
            self.refused(message, good, "--sweep", self.write("bad.csv", text))
        self.refused("accepted: one plan or more", self.write("bad.json", prediction()))
        self.refused("not the JSON of headway predict", self.write("bad.json", whole))
        one = plan("ep", 1, 1, 2)
        one["phases"][1]["hidden_s"] = "long"
        bad = self.write("bad.json", prediction(one))
        self.refused("plans[0].phases[1].hidden_s: 'long'; accepted: a number", bad)
        self.refused("cannot read", good, "--sweep", self.folder / "none.csv")
        done = report(good, "-o", good)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
        self.assertIn("is an input too", done.stderr)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    unittest.main()
