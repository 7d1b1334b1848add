"""headway calibrate and verify: profiles that read back, bad input that is named, exit codes."""

import os
import subprocess
import sys
import tempfile
import unittest

HEADWAY = sys.argv.pop(1)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCENARIO = os.path.join(ROOT, "scenarios", "cpu_small.yaml")
LOGS = os.path.join(ROOT, "tests", "fit", "logs")


class Calibrate(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = os.path.join(self.folder.name, "mine.yaml")

    def tearDown(self):
        self.folder.cleanup()

    def headway(self, *words):
        return subprocess.run([HEADWAY, *words], capture_output=True, text=True)

    def test_logs_become_curves_of_a_profile_that_reads_back(self):
        logs = []
        for name in ("alltoall_perf_2.13_h100.log", "reduce_scatter_2.18.json"):
            logs += ["--from-nccl-tests", os.path.join(LOGS, name)]
        done = self.headway("calibrate", "--base", "h100_public", "-o", self.out, *logs)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = open(self.out).read()
        self.assertIn("nccl-tests log alltoall_perf_2.13_h100.log", text)
        self.assertIn("kind: measured", text)
        paper = os.path.join(ROOT, "scenarios", "paper_4gpu.yaml")
        predicted = self.headway("predict", paper, "--profile", self.out)
        self.assertEqual(predicted.returncode, 0, predicted.stderr)

    def test_bad_input_is_named_and_leaves_no_file(self):
        bad = os.path.join(LOGS, "bad", "alltoall_cut_row.log")
        for words, message in (
            (["--from-nccl-tests", bad], "alltoall_cut_row.log:17"),
            ([], "nothing to calibrate from"),
            (["--device", "cuda"], "headway-bench"),
        ):
            done = self.headway("calibrate", "-o", self.out, *words)
            self.assertEqual(done.returncode, 2)
            self.assertIn(message, done.stderr)
            self.assertFalse(os.path.exists(self.out))

    def test_a_calibration_goes_on_where_it_stopped(self):
        # One pass, then two: the second run adds a pass to the samples of the first. Then nothing is left to measure, so
        # that the curves are those of the file, and the same again.
        samples = os.path.join(self.folder.name, "samples.csv")
        small = os.path.join(self.folder.name, "small.yaml")
        text = open(SCENARIO).read()
        for big, little in (
            ("hidden: 128", "hidden: 32"),
            ("width: 256", "width: 32"),
            ("length: 1024", "length: 32"),
        ):
            self.assertIn(big, text)
            text = text.replace(big, little)
        open(small, "w").write(text)
        words = ["calibrate", small, "--device", "cpu", "--samples", samples, "-o", self.out]
        words.append("--passes")
        sizes = []
        for passes in ("1", "2", "2"):
            done = self.headway(*words, passes)
            self.assertEqual(done.returncode, 0, done.stderr)
            sizes.append(open(samples).read().count("done,"))
        self.assertEqual(sizes, [sizes[0], 2 * sizes[0], 2 * sizes[0]])
        curves = [open(self.out).read().split("kernels:")[1]]
        self.headway(*words, "2")
        curves.append(open(self.out).read().split("kernels:")[1])
        self.assertEqual(curves[0], curves[1])
        other = self.headway(*words, "2", "--ranks", "1")
        self.assertEqual(other.returncode, 2)
        self.assertIn("samples.csv:1", other.stderr)
        self.assertEqual(open(samples).read().count("done,"), sizes[2])

    def test_a_machine_that_is_not_the_profiles_fails_verify(self):
        # An L40S's curves for a CPU: off by far more than 25 %, and said to be of another device.
        base = open(os.path.join(ROOT, "scenarios", "profiles", "l40s_public.yaml")).read()
        profile = os.path.join(self.folder.name, "gpu.yaml")
        open(profile, "w").write(base.replace("path: nvlink", "path: pcie"))
        scenario = os.path.join(self.folder.name, "ep.yaml")
        lines = [line for line in open(SCENARIO) if "head_parallel: {" not in line]
        open(scenario, "w").write("".join(lines))
        done = self.headway(
            "verify", scenario, "--profile", profile, "--run", "--repeats", "1", "--tokens", "256"
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("BEYOND TOLERANCE", done.stdout)
        self.assertIn("warning: profile", done.stderr)


if __name__ == "__main__":
    unittest.main()
