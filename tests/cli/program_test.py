#!/usr/bin/env python3
"""headway import --torch-trace and what takes a program, on traces of an H200 (tests/recorded/traces).

usage: program_test.py HEADWAY
"""

import gzip
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""
ROOT = Path(__file__).resolve().parent.parent.parent
TRACES = ROOT / "tests/recorded/traces"
TWO_H200 = ROOT / "scripts/own_script/two_h200.yaml"


def headway(*words):
    words = [str(word) for word in words]
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=300, check=False
    )


class Program(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.program = self.folder / "program.yaml"

    def trace(self, name):
        """Unpacked: a build without zlib reads it too."""
        path = self.folder / f"{name}.json"
        path.write_bytes(gzip.decompress((TRACES / f"{name}.json.gz").read_bytes()))
        return path

    def imported(self, name, *words):
        table = TRACES / f"{name}_comm.json"
        words = ("--torch-trace", self.trace(name), "--comm", table, "-o", self.program, *words)
        return headway("import", *words)

    def replayed(self, verb, *words, cluster=TWO_H200):
        where = ("--program", self.program, "--cluster", cluster, "--profile", "h200_layers")
        return headway(verb, *where, *words)

    def step_ms(self, *words):
        result = self.replayed("predict", *words, "--format", "json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return 1e3 * json.loads(result.stdout)["step_s"]

    # The GPU is busy for 100.4 ms of a step of GEMMs; the trace's kernels are 2.5 % longer.
    def test_identity_of_a_step_bound_by_the_gpu(self):
        result = self.imported("one-8")
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        self.assertIn(
            "replay of the recorded kernels: 103 ms a step; measured without profiler: 100 ms",
            result.stderr,
        )
        self.assertIn("inferred: times are medians of 3 steps", result.stderr)
        table = json.loads((TRACES / "one-8_comm.json").read_text())
        cluster = self.folder / "one.yaml"
        cluster.write_text("preset: dgx_h200\nname: one\nnodes: 1\ngpus_per_node: 1\n")
        where = ("--program", self.program, "--cluster", cluster, "--profile", "h200_layers")
        result = headway("predict", *where, "--format", "json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertAlmostEqual(
            1e3 * json.loads(result.stdout)["step_s"] / table["step_ms"], 1.0, delta=0.03
        )

    def test_experts_on_two_ranks(self):
        result = self.imported("ep-32k", "--top-k", 2)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("6 pairs of exchanges with uneven splits are a router's", result.stderr)
        even = self.step_ms()
        routing = self.folder / "routing.yaml"
        routing.write_text("routing:\n  skew: {kind: zipf, exponent: 1.0}\n  seed: 3\n")
        self.assertGreater(self.step_ms("--routing", routing), 1.02 * even)
        result = self.replayed("simulate", "--routing", routing)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("straggler: rank ", result.stdout)
        result = self.replayed("simulate")
        simulated = float(result.stdout.splitlines()[1].split()[1])
        self.assertAlmostEqual(simulated / even, 1.0, delta=0.01)
        result = self.replayed("explain", "--task", 3)
        self.assertIn("task 3: ", result.stdout)
        self.assertIn("to enqueue it", result.stdout)

    def test_tensor_parallelism(self):
        self.assertEqual(self.imported("tp-8k").returncode, 0)
        table = self.replayed("predict").stdout
        self.assertIn("all_reduce bfloat16 over 2", table)
        self.assertIn("collectives that nothing hides", table)
        result = self.replayed("predict", cluster="dgx_h200")
        self.assertEqual(result.returncode, 2)
        self.assertIn("2 ranks recorded, a cluster of 8: '0' spans all ranks", result.stderr)
        self.program.write_text(self.program.read_text().replace("grows: false", "grows: true"))
        self.assertEqual(self.replayed("predict", cluster="dgx_h200").returncode, 0)

    def refused(self, words, part):
        before = set(self.folder.iterdir())
        result = headway("import", *words, "-o", self.program)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(part, result.stderr)
        self.assertEqual(set(self.folder.iterdir()), before, "half written")

    def test_what_is_refused_leaves_nothing(self):
        trace, table = self.trace("tp-8k"), TRACES / "tp-8k_comm.json"
        cut = self.folder / "cut.json"
        cut.write_bytes(trace.read_bytes()[: trace.stat().st_size // 2])
        self.refused(("--torch-trace", cut, "--comm", table), "a JSON file that is cut")
        self.refused(("--torch-trace", trace), "give its table: --comm")
        self.refused(
            ("--torch-trace", trace, "--comm", TRACES / "ep-32k_comm.json"),
            "marked calls; ",
        )
        self.refused(("--torch-trace", trace, "--comm", TRACES / "one-8_comm.json"), "ranks 1; ")
        self.refused(("--torch-trace", trace, "--comm", trace), "no 'format'")
        self.refused(("--torch-trace", trace, "--comm", table, "--step", "99"), "99, which")
        self.refused(
            ("--torch-trace", trace, "--comm", table, "--step", "last"), "the number of a step"
        )
        self.refused(
            ("--torch-trace", trace, "--comm", table, "--gpus", "8"),
            "--gpus given, which nothing here uses",
        )
        self.refused(("--torch-trace", self.folder / "none.json"), "none.json")
        self.refused(("train.sh", "--cluster", "dgx_h200", "--top-k", 2), "--top-k given")

    def test_options_that_nothing_uses_are_refused(self):
        self.assertEqual(self.imported("tp-8k").returncode, 0)
        scenario = ROOT / "scenarios/paper_4gpu.yaml"
        for words, part in (
            (("predict", scenario, "--program", self.program), "a scenario given"),
            (("predict", "--program", self.program, "--plan", "ep"), "--plan given"),
            (
                ("predict", "--program", self.program, "--profile", "h200_layers"),
                "no cluster given",
            ),
            (("predict", scenario, "--routing", self.program), "--routing given"),
            (("explain", scenario, "--plan", "hp", "--task", 1), "--task given"),
        ):
            result = headway(*words)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(part, result.stderr)
        result = self.replayed("predict", "--format", "csv")
        self.assertIn("accepted: table, json", result.stderr)
        out = self.replayed("predict", "-o", self.program)
        self.assertIn("which is also the file of --program", out.stderr)

    def test_head_parallel_has_no_routing(self):
        self.program.write_bytes(
            (ROOT / "docs/results/validation_program/ep-8k-moe.yaml").read_bytes()
        )
        self.assertIn(
            "under Head Parallel: ", self.replayed("predict", "--head-parallel", 16).stdout
        )
        routing = self.folder / "routing.yaml"
        routing.write_text("routing:\n  skew: {kind: zipf, exponent: 1.0}\n")
        words = ("--head-parallel", 16, "--routing", routing)
        self.assertEqual(self.replayed("predict", *words).returncode, 0)
        result = self.replayed("simulate", *words)
        self.assertEqual(result.returncode, 2)
        self.assertIn("given beside --head-parallel in simulate", result.stderr)

    # EP 8 x DP 8: rank 0's groups are ranks 0..7 and 0, 8, ..., 56.
    def test_sixty_four_ranks(self):
        tasks = []
        for layer in range(4):
            first = 4 * layer
            tasks += [
                "{do: compute, stream: 7, host: 300 us, device: 2 ms, lead: 20 us, kernels: 40}",
                f"{{do: collective, stream: 7, host: 60 us, collective: all_to_all, group: ep, send: [{', '.join(['16 MiB'] * 7 + [f'{16 + layer} MiB'])}],"
                f" receive: [{', '.join(['16 MiB'] * 8)}], row_bytes: 4096}}",
                f"{{do: compute, stream: 7, host: 300 us, device: 2 ms, kernels: 9, rows_of: {first + 1}}}",
                f"{{do: collective, stream: 7, host: 60 us, collective: all_to_all, group: ep, send: [{', '.join(['16 MiB'] * 8)}],"
                f" receive: [{', '.join(['16 MiB'] * 7 + [f'{16 + layer} MiB'])}], returns: {first + 1}}}",
            ]
        tasks.append(
            "{do: collective, stream: 7, host: 60 us, collective: all_reduce, group: dp, bytes: 500 MB}"
        )
        head = "name: toy\nrank: 0\nworld_size: 64\nrouter: {experts: 64, top_k: 8}\ngroups:\n  - {name: ep, size: 8, stride: 1}\n"
        head += "  - {name: dp, size: 8, stride: 8, grows: true}\ntasks:\n"
        self.program.write_text(head + "".join(f"  - {task}\n" for task in tasks))
        cluster = self.folder / "eight.yaml"
        cluster.write_text("preset: dgx_h200\nname: eight\nnodes: 8\n")
        routing = self.folder / "routing.yaml"
        routing.write_text("routing:\n  skew: {kind: zipf, exponent: 0.5}\n")
        for words in ((), ("--routing", routing)):
            result = self.replayed("simulate", *words, cluster=cluster)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("64 ranks", result.stdout)
        cluster.write_text("preset: dgx_h200\nname: sixteen\nnodes: 16\n")
        self.assertEqual(self.replayed("predict", cluster=cluster).returncode, 0)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    sys.exit(unittest.main())
