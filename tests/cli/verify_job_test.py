#!/usr/bin/env python3
"""headway verify against logs and traces of training jobs, as a user meets it.

usage: verify_job_test.py HEADWAY
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

    def test_a_packed_log_is_read(self):
        lines = "".join(LINE.format(n, 500.0, 40.0, 64) for n in (40, 60))
        log = self.folder / "job.log.gz"
        log.write_bytes(gzip.compress((HEAD + lines).encode()))
        words = ("--profile", "a100_public", "--tolerance", "1e6", "--megatron-log", log)
        result = headway("verify", self.scenario, *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("2 of 3 iteration lines", result.stdout)

    def test_a_step_beyond_the_tolerance_is_exit_code_1(self):
        lines = "".join(LINE.format(n, 5.0, 40.0, 64) for n in (40, 60))
        self.assertIn("BEYOND TOLERANCE", self.verify(HEAD + lines, code=1).stdout)

    def test_contradictions_with_the_arguments_are_named(self):
        head = HEAD.replace(
            "num_layers ...................................... 24", "num_layers ... 12"
        )
        head = head.replace(
            "global_batch_size ............................... 64", "global_batch_size ... 128"
        )
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


JOB = ROOT / "docs/results/validation_jobs"
SCENARIO = JOB / "moe_2xh200.yaml"
TRACES = [JOB / f"moe_2xh200_rank{rank}.json.gz" for rank in (0, 1)]
TOLERANT = ("--tolerance", "1e6")


class TorchTrace(Files):
    def verify(self, *traces, words=TOLERANT, code=0):
        given = [word for trace in traces for word in ("--torch-trace", trace)]
        result = headway("verify", SCENARIO, *given, *words)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def refused(self, name, content, *more):
        path = self.folder / name
        path.write_bytes(content)
        message = self.verify(path, *more, code=2).stderr.splitlines()[-1]
        self.assertIn(name, message)
        return message

    def test_two_ranks_are_joined_by_annotations(self):
        text = self.verify(*TRACES).stdout
        self.assertIn("ranks 0, 1 of 2, ProfilerStep 2", text)
        # The sums of a script of its own over the same files: kernels of compute, of NCCL, the
        # least of both ranks' calls, and from the first kernel to the end of the last.
        for row in (
            r"whole +\S+ ms +54\.3 ms",
            r"computes +\S+ ms +6\.37 ms",
            r"exchanges, exposed +\S+ us +8\.81 ms",
            r"waiting for peers +8\.24 ms",
        ):
            self.assertRegex(text, row)
        self.assertRegex(text, r"joined by: annotation 99\.\d %")
        self.assertRegex(text, r"dispatch +forward +16\.1 MiB +16\.0 MiB")

    def test_without_annotations_the_same_time_lies_in_the_same_phases(self):
        bare = []
        for trace in TRACES:
            document = json.loads(gzip.decompress(trace.read_bytes()))
            events = document["traceEvents"]
            document["traceEvents"] = [
                e for e in events if e.get("cat") != "user_annotation" or "#" in e["name"]
            ]
            bare.append(self.folder / trace.name)
            bare[-1].write_bytes(gzip.compress(json.dumps(document).encode()))
        times = []
        for traces in (TRACES, bare):
            csv = self.folder / "both.csv"
            self.verify(*traces, words=(*TOLERANT, "--csv", csv))
            rows = [line.split(",") for line in csv.read_text().splitlines()]
            times.append(
                {
                    (row[5], row[6]): int(row[7]) * float(row[9])
                    for row in rows
                    if row[0] == "measured" and row[2] == "0"
                }
            )
        told, found = times
        moved = sum(abs(told[key] - found.get(key, 0.0)) for key in told) / 2
        self.assertLess(moved / sum(told.values()), 0.05)
        for key in (("forward", "dispatch"), ("backward", "combine"), ("backward", "expert")):
            self.assertAlmostEqual(found[key] / told[key], 1.0, places=2)

    def test_the_timelines_are_those_of_other_verbs(self):
        csv = self.folder / "both.csv"
        self.verify(*TRACES, words=(*TOLERANT, "--csv", csv))
        figure = self.folder / "figure.png"
        drawn = headway("plot", csv, "--figure", "compare", "-o", figure)
        self.assertEqual(drawn.returncode, 0, drawn.stderr)
        self.assertTrue(figure.exists())
        # A whole step is no run of layers.
        again = headway("verify", SCENARIO, "--measured", csv)
        self.assertEqual(again.returncode, 2, again.stdout)
        self.assertIn("of a whole step", again.stderr)

    def test_what_is_beyond_the_tolerance_is_exit_code_1(self):
        self.verify(*TRACES, words=("--tolerance", "1"), code=1)

    def test_what_is_no_trace_is_one_line(self):
        whole = TRACES[0].read_bytes()
        self.assertIn("a gzip stream that is cut", self.refused("cut.json.gz", whole[:40000]))
        broken = bytearray(whole)
        broken[30000:30010] = bytes(10)
        self.assertRegex(self.refused("bad.json.gz", bytes(broken)), "damaged gzip|no JSON at byte")
        plain = gzip.decompress(whole)
        self.assertIn("a JSON file that is cut", self.refused("cut.json", plain[:-2000]))
        self.assertIn("JSON without traceEvents", self.refused("x.json", b'{"plans": []}'))
        self.assertIn("a JSON list", self.refused("x.json", b"[]"))
        self.assertIn("no JSON at byte 1", self.refused("x.json", b"scenario: y"))
        empty = b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1, "dur": 1}]}'
        self.assertIn("none of them a GPU kernel", self.refused("x.json", empty))
        self.assertIn("rank 0 once more", self.refused(TRACES[0].name, whole, TRACES[0]))
        steps = plain.replace(b"ProfilerStep#", b"Step ")
        self.assertIn("no ProfilerStep range", self.refused("x.json", steps))
        self.assertIn("no such file", self.verify("absent.json", code=2).stderr)

    def test_a_trace_of_the_simulator_is_no_trace_of_a_job(self):
        trace = self.folder / "simulated.json"
        made = headway(
            *("simulate", ROOT / "scenarios/paper_4gpu.yaml", "--plan", "hp", "--trace", trace)
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertIn("none of them a GPU kernel", self.verify(trace, code=2).stderr)

    def test_another_number_of_ranks_is_refused(self):
        text = SCENARIO.read_text()
        wider = text.replace("gpus_per_node: 2", "gpus_per_node: 4")
        self.assertNotEqual(text, wider)
        scenario = self.write("wider.yaml", wider)
        result = headway("verify", scenario, "--torch-trace", TRACES[0])
        self.assertEqual(result.returncode, 2, result.stdout)
        self.assertIn("a run of 2 ranks; accepted: one of 4", result.stderr)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    unittest.main()
