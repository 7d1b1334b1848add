#!/usr/bin/env python3
"""headway verify against logs and traces of training jobs, as a user meets it.

usage: verify_job_test.py HEADWAY
"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""
ROOT = Path(__file__).resolve().parent.parent.parent
# The argument dump of a public job and one iteration line, of 20 iterations.
HEAD = (ROOT / "tests/import/jobs/top1_64_experts.log").read_text()
LINE = (
    " [2026-01-02 03:04:05] iteration {}/   40000 | consumed samples: 1 | elapsed time per iteration"
    " (ms): {} | throughput per GPU (TFLOP/s/GPU): {} | global batch size: {} | lm loss: 1.0E+01 |"
    " number of skipped iterations:   0 | number of nan iterations:   0 |\n"
)


def headway(*words):
    words = [str(word) for word in words]
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=120, check=False
    )


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path


class MegatronLog(Files):
    def setUp(self):
        super().setUp()
        dump = self.write("dump.log", HEAD)
        self.scenario = self.folder / "job.yaml"
        result = headway("import", dump, "--cluster", "dgx_a100", "-o", self.scenario)
        self.assertEqual(result.returncode, 0, result.stderr)

    def verify(self, text, *words, code):
        log = self.write("job.log", text)
        result = headway(
            *("verify", self.scenario, "--profile", "a100_public", "--megatron-log", log),
            *words,
        )
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def test_a_log_of_the_scenario_is_compared(self):
        lines = "".join(LINE.format(n, 500.0 + n / 20, 40.0, 64) for n in (40, 60, 80))
        result = self.verify(HEAD + lines, "--tolerance", "1e6", code=0)
        # Lines of 20 iterations; the one at the end of HEAD holds the first five: 502, 503 and 504 ms.
        self.assertIn("3 of 4 iteration lines; 1 of warm-up left out", result.stdout)
        self.assertRegex(result.stdout, r"step time .* 503 ms  502 ms \.\. 504 ms")
        # 40 TFLOP/s for 0.503 s
        self.assertIn("the job 20.1 TFLOP", result.stdout)
        self.assertIn("argument dump of a Megatron log", result.stdout)
        self.assertNotIn("the scenario has", result.stderr)

    def test_a_step_beyond_the_tolerance_is_exit_code_1(self):
        lines = "".join(LINE.format(n, 5.0, 40.0, 64) for n in (40, 60))
        self.assertIn("BEYOND TOLERANCE", self.verify(HEAD + lines, code=1).stdout)

    def test_contradictions_with_the_arguments_are_named(self):
        head = HEAD.replace("num_layers ...................................... 24", "num_layers ... 12")
        head = head.replace("global_batch_size ............................... 64", "global_batch_size ... 128")
        self.assertNotEqual(head, HEAD)
        lines = "".join(LINE.format(n, 500.0, 40.0, 128) for n in (40, 60))
        message = self.verify(head + lines, "--tolerance", "1e6", code=0).stderr
        self.assertIn("model.num_layers: the scenario has 24, the job 12", message)
        self.assertIn("sequences of a step: the scenario has 64, the job 128", message)
        self.assertNotIn("model.hidden", message)

    def test_a_log_without_arguments_says_so(self):
        lines = "".join(LINE.format(n, 500.0, 40.0, 32) for n in (1, 2, 3))
        result = self.verify(lines, "--warmup", 1, "--tolerance", "1e6", code=0)
        self.assertIn("does not begin with the job's arguments", result.stdout)
        self.assertIn("sequences of a step: the scenario has 64, the job 32", result.stderr)

    def test_what_is_no_log_is_one_line(self):
        whole = LINE.format(40, 500.0, 40.0, 64)
        for text, found in (
            ("", "no iteration in 0 lines"),
            ("epoch 1: loss 3\n", "no iteration in 1 lines"),
            (HEAD + LINE.format(40, "nan", 1, 64), r"\(ms\): nan'; accepted: a positive number"),
            (HEAD + whole[: whole.index("500.0") + 2], "of a line that is cut"),
            (LINE.format(2, 500.0, 40.0, 64), "1 iteration lines, 1 of warm-up"),
        ):
            message = self.verify(text, code=2).stderr
            self.assertRegex(message, f"job.log.*{found}")
            self.assertEqual(message.count("\n"), 1, message)

    def test_options_of_other_sources_are_refused(self):
        for words in (("--csv", "x.csv"), ("--ranks", "4"), ("--run",), ("--min-time", "2")):
            self.verify(HEAD, *words, code=2)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    unittest.main()
