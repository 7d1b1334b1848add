#!/usr/bin/env python3
"""headway verify --lab and calibrate --lab on a small cluster that is really built. No time is judged here.

usage: verify_lab_test.py HEADWAY HEADWAY_LAB; skipped (77) where namespaces are not allowed
"""

import csv
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from lab_rights import run_or_skip

HEADWAY, LAB = sys.argv[1], sys.argv[2]
# Four hosts in two leaves, one card at a quarter: T = 256, d = 64, E = 8, k = 2, fp32, 32 KiB a pair of hosts.
SCENARIO = """
model:
  name: tiny
  vocab_size: 64
  hidden: 64
  num_layers: 1
  attention: {num_heads: 4, num_kv_heads: 4, head_width: 16}
  moe: {num_experts: 8, top_k: 2, expert_width: 16, activation: swiglu}
  dtype: fp32
cluster:
  name: two_leaves
  device: {name: CPU, peak_matmul: 100 TFLOP/s, memory_bandwidth: 10 TB/s, memory: 16 GiB}
  nodes: 4
  gpus_per_node: 1
  fabric:
    {nics_per_node: 1, nic: 40 Gbps, nodes_per_leaf: 2, oversubscription: 2, nic_latency: 1 us, spine_latency: 1 us}
  link_overrides: [{link: nic:2, bandwidth_factor: 0.25}]
batch: {sequence_length: 256}
routing: {noise: false}
plans:
  - {name: ep, expert_parallel: {}, group_size: 4}
  - {name: hp, head_parallel: {num_heads: 4}, group_size: 4}
baseline: ep
"""
COLUMNS = "plan,what,predicted_s,simulated_s,measured_s,low_s,high_s,link_bytes_low,link_bytes_high"


class VerifyLab(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.scenario = self.dir / "tiny.yaml"
        self.scenario.write_text(SCENARIO)

    def verify(self, *words):
        out = self.dir / "lab.csv"
        command = [HEADWAY, "verify", self.scenario, "--lab", "--scale", "1/400", "--repeats", 2]
        command += ["--tolerance", 1e9, "--csv", out, *words]
        done = subprocess.run(
            [str(w) for w in command], text=True, capture_output=True, timeout=300, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        text = out.read_text()
        self.assertEqual(text.splitlines()[0], COLUMNS)
        return done.stdout, list(csv.DictReader(text.splitlines()))

    def test_exchanges_three_ways_and_the_bytes_of_links(self):
        text, rows = self.verify()
        what = [(row["plan"], row["what"]) for row in rows]
        exchanges = [("ep", "dispatch"), ("ep", "combine"), ("hp", "head_scatter")]
        self.assertEqual(what, [*exchanges, ("hp", "head_gather")])
        # Without noise every pair has T k / N copies of d elements, or T H / N of d / H: the slow
        # card sends and gets 3 of them at a quarter of 100 Mbit/s.
        pair = {"ep": 256 * 2 / 4 * 64 * 4, "hp": 256 * 64 / 4 * 4}
        for row in rows:
            expected = 3 * pair[row["plan"]] / (0.25 * 12.5e6)
            for source in ("predicted_s", "simulated_s"):
                self.assertAlmostEqual(float(row[source]) / expected, 1, delta=0.01, msg=row)
            self.assertGreater(float(row["measured_s"]), 0)
            self.assertGreaterEqual(float(row["link_bytes_low"]), 0)
        self.assertIn("bytes of links: as simulated, and headers", text)
        self.assertIn("exchanges of hp over ep: 2.00x predicted, 2.00x simulated, ", text)
        self.assertIn("not emulated: RDMA", text)

    def test_layers_with_a_profile_of_the_lab(self):
        profile = self.dir / "lab.yaml"
        command = [HEADWAY, "calibrate", self.scenario, "--lab", "--scale", "1/400", "--passes", 1]
        done = subprocess.run(
            [*map(str, command), "-o", profile], text=True, capture_output=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        # A GPU a node: there is no island whose links a curve could be of.
        for who in ("one message alone", "both ways", "4 ranks"):
            self.assertRegex(done.stderr, rf"nic, {who}: .* of the link's 12.5 MB/s")
        self.assertNotIn("pcie", done.stderr)
        curves = re.findall(
            r"collective: all_to_all\n +path: (\w+)\n +num_ranks: (\d+)\n +link: 100 Mbps",
            profile.read_text(),
        )
        self.assertEqual(sorted(curves), [(p, n) for p in ("nic", "spine") for n in ("2", "4")])
        text, rows = self.verify("--profile", profile)
        self.assertIn("curves of profile lab", text)
        self.assertRegex(text, r"layers of hp over ep: \S+ predicted, \S+ simulated, \S+ measured")
        for plan in ("ep", "hp"):
            of = {row["what"]: row for row in rows if row["plan"] == plan}
            for source in ("predicted_s", "simulated_s", "measured_s"):
                parts, whole = (float(of[w][source]) for w in ("layer_exchanges", "layer"))
                self.assertTrue(0 < parts < whole, of)

    def test_beyond_the_tolerance_is_a_negative_result(self):
        command = [HEADWAY, "verify", self.scenario, "--lab", "--scale", "1/400", "--repeats", 1]
        done = subprocess.run(
            [*map(str, command), "--tolerance", "0"], text=True, capture_output=True, check=False
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("BEYOND TOLERANCE", done.stdout)


if __name__ == "__main__":
    run_or_skip(LAB, SCENARIO, "--scenario")
