#!/usr/bin/env python3
"""Absurd input costs little and is named: every case within 1.5 GiB of address space and a minute.

usage: absurd_test.py HEADWAY SCENARIO.yaml
"""

import os
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""
SCENARIO = ""
# AddressSanitizer reserves terabytes of address space, and takes several times as long.
UNBOUNDED = bool(os.environ.get("HEADWAY_NO_MEMORY_LIMIT"))
LIMIT = None if UNBOUNDED else 3 << 29
SECONDS = 120 if UNBOUNDED else 60


def limit_memory():
    if LIMIT:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


class Absurd(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def expect_refusal(self, *words, fragment):
        result = subprocess.run(
            [HEADWAY, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            preexec_fn=limit_memory,
        )
        self.assertEqual(result.returncode, 2, (words, result.stderr[-500:]))
        self.assertIn("headway: error: ", result.stderr)
        self.assertIn(fragment, result.stderr)
        self.assertLess(len(result.stderr), 100_000)

    def file(self, text: str, name: str = "s.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def gigabyte(self, name: str) -> Path:
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(1 << 30)  # without blocks on the disk
        return path

    def changed(self, old: str, new: str) -> Path:
        text = Path(SCENARIO).read_text()
        self.assertIn(old, text)
        return self.file(text.replace(old, new))

    def test_a_billion_ranks(self):
        for nodes in ("1000000000", "1048576", "99999999999999999999"):
            path = self.changed("gpus_per_node: 4", f"gpus_per_node: 4, nodes: {nodes}")
            self.expect_refusal("predict", path, fragment="nodes")
        axis = "cluster.nodes=1000000000"
        self.expect_refusal("sweep", SCENARIO, "--axis", axis, fragment="out of range")

    def test_numbers_that_are_none(self):
        for value in ("nan", ".nan", "inf", "-.inf", "1e999", "-1", "0x10"):
            for unit in ("GiB", "GB"):
                path = self.changed("gpus_per_node: 4", f"device: {{memory: {value} {unit}}}")
                self.expect_refusal("predict", path, fragment="memory")
            path = self.changed("sequences_per_rank: 8", f"sequences_per_rank: {value}")
            self.expect_refusal("predict", path, fragment="sequences_per_rank")
            self.expect_refusal(
                "sweep", SCENARIO, f"--axis=cluster.nvlink.bandwidth={value} GB/s",
                fragment="cluster.nvlink.bandwidth",
            )  # fmt: skip

    def test_a_gigabyte_of_anything(self):
        big = self.gigabyte("big.yaml")
        self.expect_refusal("predict", big, fragment="at most 16777216 bytes")
        self.expect_refusal("predict", SCENARIO, "--profile", big, fragment="at most")
        self.expect_refusal(
            "alltoall", "--matrix", big, "--cluster", "dgx_h100", fragment="more than"
        )
        calibrate = ("calibrate", "-o", self.folder / "p.yaml")
        self.expect_refusal(*calibrate, "--from-nccl-tests", big, fragment="more than")
        self.expect_refusal(*calibrate, "--from-kernel-bench", big, fragment="more than")
        sweep = ("sweep", SCENARIO, "--axis", "model.moe.top_k=1,2", "-o", big)
        self.expect_refusal(*sweep, fragment="not of this sweep")
        self.assertEqual(big.stat().st_size, 1 << 30)
        self.expect_refusal("merge", big, fragment="a line of more than")

    def test_alias_bombs_and_deep_nesting(self):
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
        self.expect_refusal("predict", self.file("\n".join(lines)), fragment="written out")
        self.expect_refusal("predict", self.file("model: " + "[" * 100_000), fragment="bracket")
        self.expect_refusal(
            "predict", self.file("model: " + "{a: " * 100_000), fragment="s.yaml:1:"
        )
        config = self.file("[" * 1_000_000, "config.json")
        self.expect_refusal(
            "predict", self.changed("{preset: paper_base}", str(config)), fragment="config.json"
        )
        log = self.file("{" + '"a":[' * 1_000_000, "log.json")
        calibrate = ("calibrate", "-o", self.folder / "p.yaml", "--from-nccl-tests", log)
        self.expect_refusal(*calibrate, fragment="not JSON")

    def test_endless_and_special_files(self):
        for path in ("/dev/zero", "/", "/dev/null"):
            self.expect_refusal("predict", path, fragment="error")
            self.expect_refusal(
                "alltoall", "--matrix", path, "--cluster", "dgx_h100", fragment="regular file"
            )

    def test_sweeps_beyond_reason(self):
        huge = ["--axis=batch.sequence_length=1..1000000", "--axis=model.vocab_size=1..1000000"]
        self.expect_refusal("sweep", SCENARIO, *huge, fragment="too many points")
        self.expect_refusal(
            "sweep", SCENARIO, "--axis=model.hidden=0..1e300:1e-300", fragment="at most 1000000"
        )
        self.expect_refusal("sweep", SCENARIO, "--axis=model.hidden=1..inf", fragment="FIRST..LAST")
        self.expect_refusal("sweep", SCENARIO, "--axis=" + "a." * 10_000 + "=1", fragment="bytes")
        one = ("sweep", SCENARIO, "--axis=model.moe.top_k=1")
        for shard in ("0/99999999999", "1/1", "-1/2", "0/0", "a/b", "0"):
            self.expect_refusal(*one, "--shard", shard, fragment="i/n")
        head = (
            "# headway sweep 1\n# scenario: a\n# profile: b\n# version: c\n# seed: 0\n# sweep: d\n"
        )
        for counts in ("9999999999999 of 1 plans", "1 of 0 plans", "-1 of 1 plans"):
            path = self.file(f"{head}# points: {counts}\n# shard: 0 of 1\nplan\n", "r.csv")
            self.expect_refusal("merge", path, fragment="r.csv")
        path = self.file(f"{head}# points: 1 of 1 plans\n# shard: 0 of 999999999\nplan\n", "r.csv")
        self.expect_refusal("merge", path, fragment="shard 0 of 999999999")


if __name__ == "__main__":
    HEADWAY, SCENARIO = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1])
