#!/usr/bin/env python3
"""headway simulate, alltoall and matrix on a shipped scenario.

usage: simulate_test.py HEADWAY SCENARIO.yaml
"""

import contextlib
import itertools
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

HEADWAY = ""
SCENARIO = ""
PIPELINE = Path(__file__).with_name("pipeline.yaml")


def headway(*words):
    return subprocess.run(
        [HEADWAY, *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


class Simulate(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_well(self, *words) -> str:
        result = headway(*words)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def expect_bad_input(self, *words, fragment):
        result = headway(*words)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(fragment, result.stderr)

    def test_json_has_phases_links_and_ranks(self):
        result = json.loads(self.run_well("simulate", SCENARIO, "--format", "json"))
        plan = result["plans"][0]
        self.assertEqual(len(plan["rank_finish_s"]), 4)
        self.assertAlmostEqual(max(plan["rank_finish_s"]), plan["step_time_s"], delta=1e-12)
        self.assertIn("dispatch", [p["phase"] for p in plan["phases"]])
        for link in plan["links"]:
            self.assertLessEqual(link["bytes"] / link["bytes_per_s"], link["busy_s"] * 1.001)

    def pipelined(self) -> dict:
        """A step of four pipeline ranks of two GPUs, simulated."""
        trace = self.folder / "trace.json"
        words = ("simulate", PIPELINE, "--format", "json", "--trace", trace)
        plan = json.loads(self.run_well(*words))["plans"][0]
        plan["tracks"] = {
            event["args"]["name"]
            for event in json.loads(trace.read_text())["traceEvents"]
            if event["name"] == "thread_name"
        }
        return plan

    # A stage is idle for (p - 1)(F + B) of (m + p - 1)(F + B), and waits for messages.
    def test_a_pipeline_says_how_long_its_ranks_are_idle(self):
        plan = self.pipelined()
        stages = plan["pipeline"]["ranks"]
        self.assertEqual(len(stages), 4)
        for stage in stages:
            self.assertAlmostEqual(
                stage["busy_s"] + stage["idle_s"], plan["pipeline"]["passes_s"], delta=1e-9
            )
            self.assertGreater(stage["idle_s"] / plan["pipeline"]["passes_s"], 3 / 11 - 0.1)
        self.assertAlmostEqual(plan["step_time_s"] / plan["predicted_step_time_s"], 1, delta=0.05)
        self.assertLessEqual({"send forward", "send backward", "compute"}, plan["tracks"])
        table = self.run_well("simulate", PIPELINE)
        self.assertIn("pipeline rank", table)
        self.assertIn("pipeline_p2p", table)

    def test_a_pipeline_has_all_its_layers(self):
        self.expect_bad_input("simulate", PIPELINE, "--layers", "2", fragment="--layers")

    def test_exact_and_batched_agree_within_the_bound(self):
        def step(epsilon):
            words = ("--plan", "ep_naive", "--format", "json", "--epsilon", epsilon)
            return json.loads(self.run_well("simulate", SCENARIO, *words))["plans"][0]

        exact, rough = step("0"), step("0.05")
        self.assertEqual(exact["error_bound_s"], 0)
        gap = abs(exact["step_time_s"] - rough["step_time_s"])
        self.assertLessEqual(gap, rough["error_bound_s"])

    def test_csv_is_a_timeline_and_runs_are_equal(self):
        first = self.run_well("simulate", SCENARIO, "--plan", "hp", "--format", "csv")
        self.assertIn("simulated", first)
        self.assertEqual(
            first, self.run_well("simulate", SCENARIO, "--plan", "hp", "--format", "csv")
        )

    def test_trace_is_json_and_takes_other_timelines(self):
        trace, predicted = self.folder / "trace.json", self.folder / "predicted.csv"
        self.run_well("predict", SCENARIO, "--plan", "hp", "--format", "csv", "--out", predicted)
        self.run_well(
            "simulate", SCENARIO, "--plan", "hp", "--trace", trace, "--trace-with", predicted
        )
        events = json.loads(trace.read_text())["traceEvents"]
        kinds = {event["ph"] for event in events}
        self.assertEqual(kinds, {"M", "X", "s", "f", "C"})
        names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
        self.assertIn("hp simulated: rank 3", names)
        self.assertIn("hp predicted: busiest rank", names)

    def test_trace_keeps_to_the_chrome_trace_format(self):
        """Predicted, simulated and measured in one file; arrows in pairs inside slices."""
        trace, predicted = self.folder / "trace.json", self.folder / "predicted.csv"
        measured = self.folder / "measured.csv"
        self.run_well("predict", SCENARIO, "--plan", "hp", "--format", "csv", "--out", predicted)
        own = self.run_well("simulate", SCENARIO, "--plan", "hp", "--format", "csv")
        measured.write_text(own.replace("\nsimulated,", "\nmeasured,"))
        files = ("--trace-with", predicted, "--trace-with", measured)
        self.run_well("simulate", SCENARIO, "--plan", "hp", "--trace", trace, *files)
        events = json.loads(trace.read_text())["traceEvents"]
        names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
        for source in ("predicted: busiest rank", "simulated: rank 0", "measured: rank 0"):
            self.assertIn(f"hp {source}", names)
        slices, arrows, named = {}, {}, set()
        for e in events:
            if e["name"] in ("process_name", "thread_name"):
                self.assertEqual(e["ph"], "M")
                self.assertTrue(e["args"]["name"])
                named.add((e["pid"], e["tid"] if e["name"] == "thread_name" else None))
        for e in events:
            self.assertIsInstance(e["pid"], int)
            if e["ph"] == "M":
                continue
            self.assertGreaterEqual(e["ts"], 0)
            self.assertIn((e["pid"], None), named)
            if e["ph"] == "C":
                self.assertTrue(e["name"])
                self.assertTrue(all(v >= 0 for v in e["args"].values()))
                continue
            self.assertIn((e["pid"], e["tid"]), named)
            if e["ph"] == "X":
                self.assertTrue(e["name"])
                self.assertGreaterEqual(e["dur"], 0)
                slices.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
            else:
                arrows.setdefault(e["id"], []).append(e)
        self.assertTrue(arrows)
        for pair in arrows.values():
            self.assertEqual([e["ph"] for e in pair], ["s", "f"])
            self.assertLessEqual(pair[0]["ts"], pair[1]["ts"])
            self.assertEqual(pair[1]["bp"], "e")
            for e in pair:
                around = slices[e["pid"], e["tid"]]
                self.assertTrue(any(a - 2e-3 <= e["ts"] <= b + 2e-3 for a, b in around))
        # A viewer counts nanoseconds and drops a slice that begins before the one before it ends.
        for spans in slices.values():
            in_ns = sorted((round(1e3 * a), round(1e3 * b)) for a, b in spans)
            self.assertTrue(all(a[1] <= b[0] for a, b in zip(in_ns, in_ns[1:], strict=False)))

    def test_matrix_replays_in_alltoall(self):
        csv, nccl = self.folder / "m.csv", self.folder / "m.txt"
        self.run_well("matrix", SCENARIO, "--plan", "ep_naive", "--out", csv)
        self.run_well(
            "matrix", SCENARIO, "--plan", "ep_naive", "--format", "nccl-tests", "--out", nccl
        )
        cluster = self.folder / "c.yaml"
        cluster.write_text(self.cluster_text())
        answers = []
        for matrix in (csv, nccl):
            text = self.run_well(
                "alltoall", "--matrix", matrix, "--cluster", cluster, "--format", "json"
            )
            answer = json.loads(text)
            for key in ("cpu_s", "peak_rss_bytes"):
                self.assertGreater(answer.pop(key), 0)
            answers.append(answer)
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0]["flows"], 12)
        self.assertGreaterEqual(
            answers[0]["completion_s"] * (1 + 1e-9) + 1e-12, answers[0]["lower_bound_s"]
        )
        self.assertEqual(answers[0]["error_bound_s"], 0)

    def test_combine_returns_what_dispatch_brought(self):
        words = ("matrix", SCENARIO, "--plan", "ep_naive")
        there = [row.split(",") for row in self.run_well(*words).split()]
        back = [row.split(",") for row in self.run_well(*words, "--phase", "combine").split()]
        self.assertNotEqual(there, back)
        self.assertEqual(there, [list(column) for column in zip(*back)])

    def test_hp_is_uniform(self):
        rows = self.run_well("matrix", SCENARIO, "--plan", "hp").split()
        self.assertEqual(len({cell for row in rows for cell in row.split(",")}), 1)

    def test_matrix_needs_no_profile(self):
        # fp32, 8 ranks, T = 512, H d_h = 256: T 256 / 8 elements to each.
        words = ("matrix", Path(SCENARIO).with_name("lab_two_leaves.yaml"))
        rows = [row.split(",") for row in self.run_well(*words, "--plan", "hp").split()]
        self.assertEqual(rows, [[str(512 * 256 // 8 * 4)] * 8] * 8)
        # Node-dedup stays with the rank of its number between nodes, and inside nodes.
        for stage, other in (
            (0, lambda i, j: i // 2 != j // 2 and i % 2 == j % 2),
            (1, lambda i, j: i // 2 == j // 2),
        ):
            text = self.run_well(*words, "--plan", "ep_node", "--stage", stage)
            cells = [list(map(int, row.split(","))) for row in text.split()]
            for i, j in itertools.product(range(8), repeat=2):
                self.assertEqual(cells[i][j] > 0, other(i, j), (stage, i, j))

    def test_matrix_of_an_overlapped_plan_is_whole(self):
        chunked = self.folder / "chunked.yaml"
        plan = "  - name: ep_naive "
        text = Path(SCENARIO).read_text()
        self.assertIn(plan, text)
        chunked.write_text(text.replace(plan, "  - overlap_chunks: 2\n    name: ep_naive ", 1))
        words = ("--plan", "ep_naive")
        self.assertEqual(
            self.run_well("matrix", chunked, *words), self.run_well("matrix", SCENARIO, *words)
        )

    def cluster_text(self, extra=""):
        return f"preset: dgx_h100\nnodes: 1\ngpus_per_node: 4\nnvlink: {{domain: 4}}\n{extra}"

    @staticmethod
    def with_slow_rank(scenario, rank, factor):
        extra = f"rank_overrides: [{{rank: {rank}, compute_factor: {factor}}}]"
        head, tail = scenario.split("cluster: {", 1)
        return f"{head}cluster: {{{extra}, {tail}"

    def test_bad_input(self):
        matrix = self.folder / "m.csv"
        matrix.write_text("0,1\n2,x\n")
        cluster = self.folder / "c.yaml"
        cluster.write_text(self.cluster_text())
        words = ("alltoall", "--matrix", matrix, "--cluster", cluster)
        self.expect_bad_input(*words, fragment="m.csv:2:3: 'x'")
        matrix.write_text("0,1\n2,0\n")
        self.expect_bad_input(*words, fragment="a matrix of 2 ranks; accepted: 4 ranks")
        self.expect_bad_input(*words, "--epsilon", "2", fragment="--epsilon")
        self.expect_bad_input("matrix", SCENARIO, fragment="--plan")
        self.expect_bad_input(
            "matrix",
            SCENARIO,
            "--plan",
            "hp",
            "--phase",
            "dispatch",
            fragment="no dispatch in layer 0",
        )
        self.expect_bad_input(
            "matrix", PIPELINE, "--plan", "ep", fragment="a pipeline: a layer lies on"
        )
        self.expect_bad_input("simulate", SCENARIO, "--epsilon", "-1", fragment="--epsilon")

    def test_a_machine_beyond_memory_is_refused_with_the_limit(self):
        scenario = self.folder / "large.yaml"
        scenario.write_text(
            "model: {preset: olmoe_1b_7b}\n"
            "cluster: {preset: dgx_h100, nodes: 25000}\n"
            "batch: {sequence_length: 4096}\n"
            "plans: [{name: ep, expert_parallel: {}, group_size: 8}]\n"
            "profile: {preset: h100_public}\n"
        )
        self.expect_bad_input("simulate", scenario, fragment="200000 ranks in groups of up to 8")
        self.expect_bad_input("simulate", scenario, fragment="accepted: up to about")

    def test_a_step_over_a_dead_rail_is_a_negative_result(self):
        scenario = Path(__file__).with_name("dead_rail.yaml")
        result = headway("simulate", scenario)
        self.assertEqual(result.returncode, 1, result.stderr)
        because = r"rank \d+ cannot reach rank \d+: link nic_(up|down):3 is dead"
        self.assertRegex(result.stdout, "plan ep: cannot run: " + because)
        self.assertRegex(result.stdout, "plan hp: cannot run: " + because)
        result = headway("simulate", scenario, "--plan", "ep", "--format", "json")
        self.assertEqual(result.returncode, 1, result.stderr)
        plan = json.loads(result.stdout)["plans"][0]
        self.assertFalse(plan["feasible"])
        self.assertRegex(plan["infeasible_because"], because)
        self.assertNotIn("step_time_s", plan)
        self.assertIn(plan["unreachable"]["link"], ("nic_up:3", "nic_down:3"))
        result = headway("simulate", scenario, "--format", "csv")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, because)
        alive = self.folder / "alive.yaml"
        alive.write_text(scenario.read_text().replace("bandwidth_factor: 0", "bandwidth_factor: 1"))
        self.run_well("simulate", alive)

    def test_algorithms_are_chosen(self):
        """n - 1 rounds wait their latency n - 1 times; a tree moves other bytes than a ring."""

        def plan(*words):
            text = self.run_well("simulate", SCENARIO, "--plan", "hp", "--format", "json", *words)
            return json.loads(text)["plans"][0]

        def time_of(result, phase):
            return sum(p["time_mean_s"] for p in result["phases"] if p["phase"] == phase)

        usual = plan()
        self.assertEqual(usual["step_time_s"], plan("--all-to-all", "grouped")["step_time_s"])
        rounds, tree = plan("--all-to-all", "pairwise"), plan("--all-reduce", "tree")
        self.assertGreater(time_of(rounds, "head_scatter"), time_of(usual, "head_scatter"))
        self.assertEqual(rounds["messages"], usual["messages"])
        self.assertNotEqual(tree["messages"], usual["messages"])
        # inside one island the hierarchy is its first stage alone
        inside = plan("--all-to-all", "hierarchical")
        self.assertEqual(inside["messages"], usual["messages"])
        self.expect_bad_input("simulate", SCENARIO, "--all-to-all", "ring", fragment="pairwise")
        self.expect_bad_input("simulate", SCENARIO, "--all-reduce", "star", fragment="ring, tree")

    def completion(self, rows, cluster_text):
        """Seconds of the all-to-all of a matrix on a cluster, through the files of a user."""
        matrix, cluster = self.folder / "m.csv", self.folder / "c.yaml"
        matrix.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
        cluster.write_text(cluster_text)
        words = ("alltoall", "--matrix", matrix, "--cluster", cluster, "--format", "json")
        return json.loads(self.run_well(*words))

    def test_gpus_behind_one_pcie_switch_share_its_uplink(self):
        """GPUs 0, 1 behind switch 0, GPUs 2, 3 behind switch 1; a GPU has B, an uplink R each way.

        alone     0 -> 2 with S bytes: S / min(B, R)
        uplink    0 -> 2 and 1 -> 3 with S each share root_up:0 and root_down:1: S / min(B, R / 2)
        inside    0 -> 1 with S, below the switch: S / B, no uplink
        both      R = B: 0 -> 2 and 1 -> 3 with S, 0 -> 1 with S / 2. The uplink and GPU 0's link have
                  two messages each: all run at B / 2. 0 -> 1 ends at S / B; the uplink stays full, so
                  the others go on at B / 2 until 2 S / B.
        """
        size, gpu = 640_000_000, 64e9

        def run(root, messages):
            rows = [[0] * 4 for _ in range(4)]
            for source, destination, amount in messages:
                rows[source][destination] = int(amount)
            return self.completion(
                rows,
                "preset: 8x_l40s_pcie\nname: pcie_tree\ngpus_per_node: 4\n"
                f"pcie: {{bandwidth: 64 GB/s, gpus_per_switch: 2, root_bandwidth: {root / 1e9} GB/s,"
                " latency: 0 us}\n",
            )

        for root in (32e9, 64e9, 128e9):
            with self.subTest(root=root):
                alone = run(root, [(0, 2, size)])
                self.assertAlmostEqual(alone["completion_s"], size / min(gpu, root), delta=1e-11)
                pair = run(root, [(0, 2, size), (1, 3, size)])
                self.assertAlmostEqual(pair["completion_s"], size / min(gpu, root / 2), delta=1e-11)
                names = {link["name"] for link in pair["links"]}
                self.assertLessEqual({"pcie_root_up:0", "pcie_root_down:1"}, names)
                inside = run(root, [(0, 1, size)])
                self.assertAlmostEqual(inside["completion_s"], size / gpu, delta=1e-11)
        both = run(gpu, [(0, 2, size), (1, 3, size), (0, 1, size / 2)])
        self.assertAlmostEqual(both["completion_s"], 2 * size / gpu, delta=1e-11)
        mean = (2 * size / gpu + 2 * size / gpu + size / gpu) / 3
        self.assertAlmostEqual(both["mean_flow_completion_s"], mean, delta=1e-11)

    def test_overrides_slow_a_link_and_a_rank(self):
        """A link at f times its bandwidth: S / (f B). A rank at f times the speed: compute / f."""
        size, factor = 450_000_000, 0.25
        rows = [[0] * 4 for _ in range(4)]
        rows[2][1] = size

        def run(override):
            return self.completion(rows, self.cluster_text(override))["completion_s"]

        usual = run("")
        slow = run(f"link_overrides: [{{link: 'nvlink_up:2', bandwidth_factor: {factor}}}]\n")
        other = run(f"link_overrides: [{{link: 'nvlink_up:1', bandwidth_factor: {factor}}}]\n")
        self.assertEqual(other, usual)
        bandwidth = 450e9
        self.assertAlmostEqual(slow - usual, size / bandwidth * (1 / factor - 1), delta=1e-11)

        text = Path(SCENARIO).read_text()
        changed = self.folder / "slow_rank.yaml"

        def hp(scenario):
            words = ("simulate", scenario, "--plan", "hp", "--epsilon", "0", "--format", "json")
            return json.loads(self.run_well(*words))["plans"][0]

        changed.write_text(self.with_slow_rank(text, rank=1, factor=0.5))
        before, after = hp(SCENARIO), hp(changed)
        for rank in range(4):
            expected = before["rank_compute_s"][rank] * (2 if rank == 1 else 1)
            # not to the bit: who waits longer in gradient exchanges computes slower beside them
            self.assertAlmostEqual(after["rank_compute_s"][rank] / expected, 1, delta=0.01)
        self.assertGreater(after["step_time_s"], before["step_time_s"])

    def test_progress_is_for_terminals(self):
        """On a terminal stderr counts up to the number of tasks and is wiped; in a pipe it is quiet."""
        words = [HEADWAY, "simulate", str(SCENARIO), "--plan", "ep_naive", "--format", "json"]
        quiet = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        self.assertEqual(quiet.stderr, "")
        ours, theirs = pty.openpty()
        shown = bytearray()

        def read():
            with contextlib.suppress(OSError):  # how Linux says that the other side is closed
                while data := os.read(ours, 4096):
                    shown.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
            os.close(theirs)
            out, _ = process.communicate(timeout=120)
        reader.join(timeout=120)
        os.close(ours)
        self.assertEqual(process.returncode, 0)
        step = json.loads(quiet.stdout)["plans"][0]["step_time_s"]
        self.assertEqual(json.loads(out)["plans"][0]["step_time_s"], step)
        self.assertRegex(shown.decode(), r"\d+ / \d+")
        self.assertTrue(shown.endswith(b"\r\x1b[K"), "the line is wiped at the end")

    def test_a_dead_link_is_a_negative_result_that_names_it(self):
        matrix, cluster = self.folder / "m.csv", self.folder / "c.yaml"
        matrix.write_text("0,1,1,1\n1,0,1,1\n1,1,0,1\n1,1,1,0\n")
        cluster.write_text(
            self.cluster_text("link_overrides: [{link: nvlink_down:2, bandwidth_factor: 0}]\n")
        )
        words = ("alltoall", "--matrix", matrix, "--cluster", cluster)
        result = headway(*words)
        self.assertEqual(result.returncode, 1, result.stderr)
        because = "rank 0 cannot reach rank 2: link nvlink_down:2 is dead"
        self.assertIn(because, result.stdout)
        answer = json.loads(headway(*words, "--format", "json").stdout)
        self.assertFalse(answer["feasible"])
        self.assertEqual(answer["infeasible_because"], because)
        self.assertEqual(answer["unreachable"]["link"], "nvlink_down:2")


if __name__ == "__main__":
    HEADWAY, SCENARIO = sys.argv[1], sys.argv[2]
    unittest.main(argv=sys.argv[:1])
