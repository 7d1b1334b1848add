#!/usr/bin/env python3
"""headway import as a user meets it: what it writes predicts, what it cannot read leaves no file.

usage: import_test.py HEADWAY
"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""
JOBS = Path(__file__).resolve().parent.parent / "import" / "jobs"
MACHINE = ("--cluster", "dgx_h100")
QWEN3 = (
    *(JOBS / "qwen3_30b.yaml", *MACHINE, "--gpus", "32", "--vocab-size", "151936"),
    *("--set=TP=1", "--set=PP=1", "--set=EP=8", "--set=CP=1"),
    *("--set=MBS=1", "--set=GBS=256", "--set=SEQ_LEN=4096"),
    "--set=MOE_TOKEN_DISPATCHER=alltoall",
    "--set=MOE_GROUPED_GEMM=true",
)


def headway(*words):
    words = [str(word) for word in words]
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=120, check=False
    )


class Import(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.out = self.folder / "job.yaml"

    def refused(self, *words, code=2):
        result = headway("import", *words, "-o", self.out)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertFalse(self.out.exists(), "half written")
        self.assertEqual(list(self.folder.iterdir()), [])
        return result.stderr

    def test_what_is_imported_predicts(self):
        result = headway("import", *QWEN3, "--profile", "h100_public", "-o", self.out)
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        self.assertIn("qwen3_30b.yaml: YAML with MODEL_ARGS; ", result.stderr)
        shown = headway("predict", self.out)
        # An infeasible plan is a result too.
        self.assertIn(shown.returncode, (0, 1), shown.stderr)
        self.assertIn("step", shown.stdout)

    def test_experts_are_cut_and_tokens_gathered_by_default(self):
        script = self.folder / "run.sh"
        script.write_text(
            "python pretrain_gpt.py --num-layers 8 --hidden-size 1024 --num-attention-heads 16 --bf16 "
            "--seq-length 2048 --micro-batch-size 2 --num-experts 16 --swiglu --vocab-size 32000 "
            "--tensor-model-parallel-size 2 --sequence-parallel --expert-model-parallel-size 4 $@\n"
        )
        for more, exchange in (
            ((), "combine"),
            (
                ("--", "--moe-token-dispatcher-type", "alltoall"),
                "etp_reduce_scatter",
            ),
        ):
            result = headway(
                *("import", script, *MACHINE, "--gpus", "16", "--profile", "h100_public"),
                *("-o", self.out, *more),
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("expert_tensor_parallel_size: 2", self.out.read_text())
            shown = headway("predict", self.out)
            self.assertEqual(shown.returncode, 0, shown.stderr)
            self.assertIn(exchange, shown.stdout)
            simulated = headway("simulate", self.out)
            self.assertEqual(simulated.returncode, 0, simulated.stderr)
            self.out.unlink()

    def test_leftovers_are_on_standard_error_and_in_the_file(self):
        result = headway("import", *QWEN3, "-o", self.out, "--", "--use-sharp", "--frobnicate", "3")
        self.assertEqual(result.returncode, 0, result.stderr)
        text = self.out.read_text()
        for line in ("--use-sharp: not modelled", "--frobnicate 3: unknown to headway"):
            self.assertIn(line, result.stderr)
            self.assertIn(line, text)

    def test_the_twin_is_compared(self):
        result = headway(
            *("import", *QWEN3, "--head-parallel-twin", "8", "--profile", "h100_public"),
            *("-o", self.out),
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        shown = headway("predict", self.out)
        self.assertIn(shown.returncode, (0, 1), shown.stderr)
        self.assertIn("hp", shown.stdout)

    def test_everything_missing_is_asked_for_at_once(self):
        message = self.refused(JOBS / "qwen3_30b.yaml")
        for asked in ("--cluster NAME|FILE", "--gpus N", "--set TP=VALUE", "--set GBS=VALUE"):
            self.assertIn(asked, message)
        self.assertRegex(message, r"qwen3_30b\.yaml:\d+:\d+: --tensor-model-parallel-size")

    def test_what_is_given_in_vain_is_refused(self):
        self.assertIn("does not read TPP", self.refused(*QWEN3, "--set", "TPP=2"))
        self.assertIn("NAME=VALUE", self.refused(*QWEN3, "--set", "TP"))
        message = self.refused(*QWEN3, "--model", "qwen3_30b_a3b")
        self.assertIn("describes its own", message)
        self.assertIn("no preset 'dgx_h1000'", self.refused(QWEN3[0], "--cluster", "dgx_h1000"))
        self.assertIn("--vocab-size", self.refused(*QWEN3, "--vocab-size", "0"))

    def test_files_that_are_none(self):
        self.assertIn("no file", self.refused("missing.sh", *MACHINE))
        self.assertIn("not a regular file", self.refused(JOBS, *MACHINE))
        binary = Path(HEADWAY)
        self.assertRegex(self.refused(binary, *MACHINE), "UTF-8|bytes")

    def test_the_job_is_not_written_over(self):
        job = self.folder / "job.sh"
        job.write_text((JOBS / "mixtral_8x7b.sh").read_text())
        before = job.read_text()
        result = headway("import", job, *MACHINE, "--set", "SLURM_NNODES=4", "-o", job)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(job.read_text(), before)


if __name__ == "__main__":
    HEADWAY = str(Path(sys.argv[1]).resolve())
    unittest.main(argv=sys.argv[:1])
