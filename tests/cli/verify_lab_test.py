#!/usr/bin/env python3
"""headway verify --lab and calibrate --lab: what they refuse before anything is built, and what they say without the
rights to build it.

usage: verify_lab_test.py HEADWAY SCENARIO.yaml
"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY, SCENARIO = sys.argv[1], Path(sys.argv[2])
LAB = ("--lab", "--scale", "1/400")


def headway(*words):
    command = [HEADWAY, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class VerifyLab(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def changed(self, old, new):
        text = SCENARIO.read_text()
        self.assertIn(old, text)
        file = self.folder / "changed.yaml"
        file.write_text(text.replace(old, new))
        return file

    def refused(self, *words, fragment, verb="verify"):
        done = headway(verb, *words)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn(fragment, errors[0])

    def test_options(self):
        self.refused(SCENARIO, "--lab", fragment="--lab: no --scale; accepted: a scale")
        self.refused(SCENARIO, "--lab", "--scale", "2", fragment="--scale: '2'; accepted: a number")
        self.refused(SCENARIO, "--lab", "--scale", "1/0", fragment="--scale: '1/0'")
        self.refused(SCENARIO, "--run", "--scale", "1/4", fragment="--lab")
        self.refused(SCENARIO, *LAB, "--run", fragment="--run")
        self.refused(SCENARIO, *LAB, "--ranks", 2, fragment="--ranks")

    def test_a_cluster_too_big_for_this_machine(self):
        wide = self.changed("  nodes: 4\n", "  nodes: 128\n")
        self.refused(wide, *LAB, fragment="256 hosts; accepted: at most 250")
        self.refused(SCENARIO, *LAB, "--tokens", 1 << 28, fragment="this machine's memory")

    def test_what_a_lab_cannot_do(self):
        core = self.changed(
            "oversubscription: 2,",
            "oversubscription: 2, core: {leaves_per_pod: 1, oversubscription: 2, latency: 1 us},",
        )
        self.refused(core, *LAB, fragment="fabric.core; accepted: leaves and one spine")
        dead = self.changed(
            "  nodes: 4\n", "  nodes: 4\n  link_overrides: [{link: nic:1, bandwidth_factor: 0}]\n"
        )
        self.refused(dead, *LAB, fragment="is dead; accepted: a cluster whose ranks all reach")

    def test_nothing_to_exchange(self):
        alone = self.changed("group_size: 8", "group_size: 1")
        self.refused(alone, *LAB, fragment="no plan whose ranks send each other anything")
        dense = self.changed(
            "  num_layers: 2\n", "  num_layers: 2\n  num_dense_layers: 2\n  dense_width: 64\n"
        )
        self.refused(dense, *LAB, fragment="no plan whose ranks send each other anything")

    def test_layers_are_one_group_of_fp32(self):
        half = self.changed("dtype: fp32", "dtype: bf16")
        profile = ("--profile", "h200_public")
        self.refused(half, *LAB, *profile, fragment="model.dtype: bf16; accepted: fp32")
        group = self.changed(
            "name: hp, head_parallel: {num_heads: 8}, group_size: 8",
            "name: hp, head_parallel: {num_heads: 8}, group_size: 4",
        )
        self.refused(group, *LAB, *profile, fragment="plan hp: groups of 4 ranks in a cluster of 8")

    def test_calibrate(self):
        out = ("-o", self.folder / "lab.yaml")

        def refused(*words, fragment):
            self.refused(*words, *out, fragment=fragment, verb="calibrate")

        refused(SCENARIO, "--lab", fragment="--lab: no --scale")
        refused(*LAB, fragment="no scenario")
        refused(SCENARIO, *LAB, "--device", "cpu", fragment="both --device cpu and --lab")
        refused(SCENARIO, *LAB, "--from", "x.csv", fragment="both --lab and --from")
        refused(SCENARIO, "--device", "cpu", "--scale", "1/4", fragment="--scale")
        half = self.changed("dtype: fp32", "dtype: bf16")
        refused(half, *LAB, fragment="model.dtype: bf16; accepted: fp32")
        self.assertFalse((self.folder / "lab.yaml").exists())

    def test_without_rights_one_message(self):
        forbid = 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"'
        words = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "-", HEADWAY, "verify"]
        done = subprocess.run(
            [*words, SCENARIO, *LAB], text=True, capture_output=True, timeout=60, check=False
        )
        if "unshare" in done.stderr or "max_net_namespaces" in done.stderr:
            self.skipTest("no user namespaces: " + done.stderr.strip())
        self.assertEqual(done.returncode, 2, done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn("accepted: root, or a user who may make", errors[0])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
