#!/usr/bin/env python3
"""An installed headway needs nothing of the tree that it was built from. The build is installed, the prefix is moved, and
every verb runs there; then parts of the moved prefix are taken away, and each must be missed: a path of the build machine
that is still looked at would find it in the source tree.
usage: install_test.py BUILD_FOLDER"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BUILD = Path(sys.argv.pop(1))
# What a user without headway in the environment has; the build's own python3 and its matplotlib stay.
ENVIRONMENT = {
    key: os.environ[key] for key in ("PATH", "HOME", "LANG", "PYENV_ROOT") if key in os.environ
}


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        subprocess.run(
            ["cmake", "--install", BUILD, "--prefix", root / "first"],
            check=True,
            capture_output=True,
        )
        cls.prefix = root / "moved"
        (root / "first").rename(cls.prefix)
        cls.work = root / "work"
        shutil.copytree(cls.prefix / "share/headway/scenarios/studies", cls.work)
        for name in ("paper_4gpu.yaml", "cpu_small.yaml"):
            shutil.copy(cls.prefix / "share/headway/scenarios" / name, cls.work)
        (cls.work / "bytes.csv").write_text("0,1000000\n2000000,0\n")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_program(self, program, *words):
        return subprocess.run(
            [self.prefix / "bin" / program, *words],
            cwd=self.work,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )

    def check(self, program, *words):
        done = self.run_program(program, *words)
        self.assertEqual(done.returncode, 0, f"{program} {' '.join(words)}: {done.stderr}")
        return done.stdout

    def test_every_verb_works_in_a_moved_prefix(self):
        self.assertTrue((self.prefix / "share/headway/recorder/headway_recorder.py").exists())
        paper, small = "paper_4gpu.yaml", "cpu_small.yaml"
        small_run = ["--tokens", "32", "--ranks", "2"]
        commands = [
            ["predict", paper, "--format", "json", "-o", "result.json"],
            ["explain", paper, "--plan", "ep_naive", "--phase", "dispatch"],
            ["simulate", paper, "--layers", "1"],
            ["alltoall", "--help"],
            ["matrix", paper, "--plan", "ep_naive", "-o", "matrix.csv"],
            ["sweep", paper, "--axis", "model.moe.top_k=2,4", "-o", "all.csv"],
            ["sweep", paper, "--axis", "model.moe.top_k=2,4", "--shard", "0/2", "-o", "s0.csv"],
            ["sweep", paper, "--axis", "model.moe.top_k=2,4", "--shard", "1/2", "-o", "s1.csv"],
            ["merge", "s0.csv", "s1.csv", "-o", "merged.csv"],
            ["best", paper],
            [
                "calibrate",
                "--from-nccl-tests",
                "log.txt",
                "--base",
                "h100_public",
                "-o",
                "mine.yaml",
            ],
            ["import", "top1_64_experts.log", "--cluster", "dgx_h100", "-o", "job.yaml"],
            ["validate"],
            ["show", paper],
            ["list"],
            ["completion", "bash"],
        ]
        shutil.copy(
            next(Path(__file__).parent.glob("fit/logs/*all_reduce*.log")), self.work / "log.txt"
        )
        shutil.copy(Path(__file__).parent / "import/jobs/top1_64_experts.log", self.work)
        for words in commands:
            self.check("headway", *words)
        self.check(
            "headway-run", small, *small_run, "--plan", "ep_naive", "--repeats", "1", "-o", "m.csv"
        )
        # Curves of a GPU, in its type and over its link, for EP alone: off, but to be compared.
        text = (self.prefix / "share/headway/scenarios/cpu_small.yaml").read_text()
        lines = [line for line in text.splitlines() if "head_parallel: {" not in line]
        (self.work / "other").mkdir()
        (self.work / "other/cpu_small.yaml").write_text(
            "\n".join(lines).replace("dtype: fp32", "dtype: bf16")
        )
        profile = self.prefix / "share/headway/scenarios/profiles/l40s_public.yaml"
        gpu = profile.read_text().replace("path: nvlink", "path: pcie")
        (self.work / "gpu.yaml").write_text(gpu)
        verify = [
            "verify",
            "other/cpu_small.yaml",
            "--profile",
            "gpu.yaml",
            "--measured",
            "m.csv",
            *small_run,
        ]
        verified = self.run_program("headway", *verify)
        self.assertIn(
            verified.returncode, (0, 1), verified.stderr
        )  # 1: that machine is not the profile's
        tried = {words[0] for words in commands} | {"verify"}
        if self.run_program("headway", "plot", "result.json", "-o", "x.png").returncode == 0:
            self.check("headway", "report", paper, "-o", "report.html")
        else:
            self.assertIn(
                "no Python with matplotlib",
                self.run_program("headway", "plot", "result.json").stderr,
            )
        tried |= {"plot", "report"}
        verbs = re.findall(r"^  ([a-z]+) {2,}", self.check("headway", "--help"), re.MULTILINE)
        self.assertEqual(set(verbs) - tried, set(), "a verb that this test does not try")

    def test_what_is_taken_from_the_prefix_is_missed(self):
        data = self.prefix / "share/headway"
        self.assertIn("h200_measured", self.check("headway", "list"))
        (data / "scenarios").rename(data / "hidden")
        try:
            for program, words in (
                ("headway", ["predict", "paper_4gpu.yaml"]),
                ("headway", ["validate"]),
                ("headway-run", ["cpu_small.yaml", "--tokens", "32", "-o", "m2.csv"]),
            ):
                done = self.run_program(program, *words)
                self.assertEqual(done.returncode, 2, f"{program}: {done.stdout}")
            self.assertNotIn("h200_measured", self.check("headway", "list"))
        finally:
            (data / "hidden").rename(data / "scenarios")
        (data / "analysis").rename(data / "hidden")
        try:
            self.check("headway", "predict", "paper_4gpu.yaml", "--format", "json", "-o", "r.json")
            plot = self.run_program("headway", "plot", "r.json", "-o", "r.png")
            self.assertEqual(plot.returncode, 2, plot.stderr)
        finally:
            (data / "hidden").rename(data / "analysis")


if __name__ == "__main__":
    unittest.main()
