#!/usr/bin/env python3
"""headway sweep and merge on a shipped scenario: rows, resuming, shards.

usage: sweep_test.py HEADWAY SCENARIO.yaml
"""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HEADWAY = ""
SCENARIO = ""

# Variables of launchers: none may leak from where the tests run.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("SLURM_", "OMPI_", "PMIX_", "PMI_"))
}


def headway(*words, **environment):
    return subprocess.run(
        [HEADWAY, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=CLEAN | environment,
    )


def rows_of(path: Path) -> list[dict]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


class Sweep(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_well(self, *words, **environment):
        result = headway(*words, **environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def expect_bad_input(self, *words, fragment, **environment):
        result = headway(*words, **environment)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(fragment, result.stderr)

    def sweep(self, name: str, *words, **environment) -> Path:
        out = self.folder / name
        self.run_well("sweep", SCENARIO, *words, "-o", out, **environment)
        return out

    def test_a_key_of_the_other_kind_of_plan_is_refused(self):
        # Plan 0 is EP and has no heads.
        out = self.folder / "kind.csv"
        axis = "plans[0].head_parallel.num_heads=4"
        words = ("sweep", SCENARIO, "--axis", axis, "-o", out)
        self.expect_bad_input(*words, fragment="a key that this plan has no place for")
        self.assertFalse(out.exists())

    def test_a_key_without_effect_is_named(self):
        """No place in the result for it: on standard error."""
        plan = self.folder / "one.yaml"
        shown = self.run_well("show", SCENARIO).stdout
        plan.write_text(shown.replace("overlap_chunks: 1", "overlap_chunks: 2"))
        text = plan.read_text()
        plan.write_text(re.sub(r"group_size: \d+", "group_size: 1", text))
        for words in (["sweep", "--axis", "model.moe.top_k=1,2"], ["simulate"]):
            done = self.run_well(words[0], plan, *words[1:])
            self.assertIn("note: plan ep_naive: overlap_chunks has no effect", done.stderr)

    def test_rows_are_the_product_in_order_and_equal_predict(self):
        out = self.sweep(
            "a.csv",
            "--axis",
            "model.moe.top_k=1,2",
            "--axis",
            "cluster.nvlink.bandwidth=100..300:200 GB/s",
        )
        rows = rows_of(out)
        points = [(r["model.moe.top_k"], r["cluster.nvlink.bandwidth"]) for r in rows[::3]]
        self.assertEqual(points, [(k, b) for k in ("1", "2") for b in ("100 GB/s", "300 GB/s")])
        self.assertEqual([r["plan"] for r in rows[:3]], ["ep_naive", "ep_dedup", "hp"])
        # The same point by hand: the preset's bandwidth and k.
        out = self.sweep(
            "b.csv", "--axis", "model.moe.top_k=4", "--axis", "cluster.nvlink.bandwidth=450 GB/s"
        )
        result = json.loads(self.run_well("predict", SCENARIO, "--format", "json").stdout)
        for row, plan in zip(rows_of(out), result["plans"], strict=True):
            self.assertEqual(row["layer"], plan["layer"])
            self.assertEqual(float(row["step_time_s"]), plan["step_time_s"])
            self.assertEqual(float(row["speedup_vs_baseline"]), plan["speedup_vs_baseline"])
            self.assertEqual(float(row["memory_peak_bytes"]), plan["memory"]["peak_bytes"])
            self.assertEqual(float(row["nvlink_bytes"]), plan["traffic"]["by_link"]["nvlink"])

    def test_an_invalid_point_is_a_row_with_its_reason(self):
        rows = rows_of(self.sweep("a.csv", "--axis", "plans.hp.head_parallel.num_heads=3,4"))
        self.assertEqual([r["status"] for r in rows], ["ok", "ok", "invalid", "ok", "ok", "ok"])
        self.assertIn("does not divide hidden 1024", rows[2]["reason"])
        self.assertEqual(rows[2]["step_time_s"], "")
        rows = rows_of(self.sweep("b.csv", "--axis", "model.moe.top_k=128..129"))
        self.assertEqual([r["status"] for r in rows[3:]], ["invalid"] * 3)

    def test_a_point_that_does_not_fit_is_infeasible_with_numbers(self):
        rows = rows_of(self.sweep("a.csv", "--axis", "cluster.device.memory=8 GiB,80 GiB"))
        self.assertEqual([r["status"] for r in rows], ["infeasible"] * 3 + ["ok"] * 3)
        self.assertIn("largest item", rows[0]["reason"])
        self.assertGreater(float(rows[0]["step_time_s"]), 0)

    def test_granularity_keeps_expert_memory_and_hp_traffic(self):
        rows = rows_of(self.sweep("a.csv", "--axis", "equal_parameters.granularity=1,2,4"))
        hp = [r for r in rows if r["plan"] == "hp"]
        naive = [float(r["sent_bytes_mean"]) for r in rows if r["plan"] == "ep_naive"]
        self.assertEqual(len({r["sent_bytes_mean"] for r in hp}), 1)
        self.assertAlmostEqual(naive[1] / naive[0], 2.0, places=9)
        self.assertAlmostEqual(naive[2] / naive[0], 4.0, places=9)

    def test_equal_batch_shares_the_same_tokens(self):
        rows = rows_of(self.sweep("a.csv", "--axis", "equal_batch.ranks=1,2,4"))
        ep = [r for r in rows if r["plan"] == "ep_naive"]
        # tokens per second and GPU * GPUs * step time = tokens of the global batch
        tokens = [
            float(r["tokens_per_s_per_gpu"]) * int(r["equal_batch.ranks"]) * float(r["step_time_s"])
            for r in ep
        ]
        for t in tokens:
            self.assertAlmostEqual(t, 4 * 8 * 2048, places=3)

    def test_threads_do_not_change_a_byte(self):
        axes = ("--axis", "model.moe.top_k=1..16", "--axis", "batch.sequence_length=512..2048:512")
        one = self.sweep("one.csv", *axes, "--threads", 1)
        for threads in (2, 7):
            many = self.sweep(f"{threads}.csv", *axes, "--threads", threads)
            self.assertEqual(one.read_bytes(), many.read_bytes())
        stdout = self.run_well("sweep", SCENARIO, *axes).stdout
        self.assertEqual(stdout, one.read_text())

    def test_simulated_rows(self):
        rows = rows_of(self.sweep("a.csv", "--axis", "model.moe.top_k=2,4", "--simulate"))
        self.assertEqual({r["source"] for r in rows}, {"simulated"})
        self.assertEqual({r["status"] for r in rows}, {"ok"})
        self.assertEqual(rows[0]["moe_forward_s"], "")

    def test_a_dead_path_is_an_infeasible_row(self):
        scenario = Path(__file__).with_name("dead_rail.yaml")
        out = self.folder / "dead.csv"
        self.run_well(
            *("sweep", scenario, "--axis", "model.moe.top_k=2,4", "--simulate", "-o", out)
        )
        rows = rows_of(out)
        self.assertEqual(len(rows), 4)
        for row in rows:
            self.assertEqual((row["status"], row["step_time_s"]), ("infeasible", ""))
            self.assertRegex(
                row["reason"], r"rank \d+ cannot reach rank \d+: link nic_\w+:3 is dead"
            )

    def test_a_file_cut_anywhere_is_continued(self):
        axes = ("--axis", "model.moe.top_k=1..8")
        whole = self.sweep("whole.csv", *axes).read_bytes()
        cut = self.folder / "cut.csv"
        for size in [*sorted(random.Random(7).sample(range(len(whole)), 12)), 0, len(whole)]:
            cut.write_bytes(whole[:size])
            self.sweep("cut.csv", *axes)
            self.assertEqual(cut.read_bytes(), whole, f"cut at {size}")

    def test_other_files_are_left_alone(self):
        axes = ("--axis", "model.moe.top_k=1,2")
        out = self.sweep("a.csv", *axes)
        before = out.read_bytes()
        other = ("sweep", SCENARIO, "--axis", "model.moe.top_k=1,4", "-o", out)
        self.expect_bad_input(*other, fragment="not of this sweep")
        self.assertEqual(out.read_bytes(), before)
        out.write_text("my notes\n")
        self.expect_bad_input("sweep", SCENARIO, *axes, "-o", out, fragment="not of this sweep")
        self.assertEqual(out.read_text(), "my notes\n")
        self.run_well("sweep", SCENARIO, *axes, "-o", out, "--restart")
        self.assertEqual(out.read_bytes(), before)
        lines = before.splitlines(keepends=True)
        out.write_bytes(b"".join(lines[:10] + lines[11:12]))
        self.expect_bad_input("sweep", SCENARIO, *axes, "-o", out, fragment="row 2")

    def test_ten_kills_and_a_resume(self):
        axes = (
            "--axis=model.moe.top_k=1..16",
            "--axis=batch.sequence_length=1024..8192:64",
            "--axis=equal_parameters.granularity=1,2",
        )
        whole = self.sweep("whole.csv", *axes).read_bytes()
        out = self.folder / "killed.csv"
        sizes = sorted(random.Random(11).sample(range(1000, len(whole) - 200_000), 10))
        for size in sizes:
            process = subprocess.Popen(
                [HEADWAY, "sweep", SCENARIO, *axes, "-o", str(out)], env=CLEAN
            )
            while process.poll() is None and (not out.exists() or out.stat().st_size <= size):
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
            self.assertEqual(process.wait(), -signal.SIGKILL, "it was done before the kill")
        self.sweep("killed.csv", *axes)
        self.assertEqual(out.read_bytes(), whole)

    def test_shards_by_hand_and_merge(self):
        axes = ("--axis", "model.moe.top_k=1..7")
        whole = self.sweep("whole.csv", *axes).read_bytes()
        shards = [self.sweep(f"{i}.csv", *axes, "--shard", f"{i}/3") for i in range(3)]
        merged = self.folder / "all.csv"
        self.run_well("merge", shards[2], shards[0], shards[1], "-o", merged)
        self.assertEqual(merged.read_bytes(), whole)
        self.expect_bad_input(
            "merge", shards[0], shards[2], fragment="1 of 3 shards are missing: 1"
        )
        self.expect_bad_input("merge", *shards, shards[1], fragment="shard 1 again")
        other = self.sweep("other.csv", "--axis", "model.moe.top_k=1..8", "--shard", "1/3")
        self.expect_bad_input("merge", shards[0], other, shards[2], fragment="a shard of sweep")
        cut = self.folder / "cut.csv"
        cut.write_bytes(shards[1].read_bytes()[:-60])
        self.expect_bad_input("merge", shards[0], cut, shards[2], fragment="complete shard")

    def test_launchers(self):
        axes = ("--axis", "model.moe.top_k=1..7")
        whole = self.sweep("whole.csv", *axes).read_bytes()
        launches = {
            "srun": [
                {"SLURM_PROCID": str(i), "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}
                for i in range(2)
            ],
            "mpiexec": [{"PMI_RANK": str(i), "PMI_SIZE": "2"} for i in range(2)],
            "array": [
                {
                    "SLURM_ARRAY_TASK_ID": str(id),
                    "SLURM_ARRAY_TASK_COUNT": "3",
                    "SLURM_ARRAY_TASK_MIN": "1",
                    "SLURM_ARRAY_TASK_STEP": "2",
                }
                for id in (1, 3, 5)
            ],
        }
        for name, variables in launches.items():
            for environment in variables:
                self.sweep(f"{name}.csv", *axes, **environment)
            shards = sorted(self.folder.glob(f"{name}.*of*.csv"))
            self.assertEqual(len(shards), len(variables))
            self.assertEqual(self.run_well("merge", *shards).stdout.encode(), whole)
        self.expect_bad_input(
            "sweep",
            SCENARIO,
            *axes,
            SLURM_PROCID="2",
            SLURM_NTASKS="2",
            SLURM_STEP_ID="0",
            fragment="share 2 of 2",
        )
        batch = self.sweep("batch.csv", *axes, SLURM_PROCID="0", SLURM_NTASKS="8")
        self.assertEqual(batch.read_bytes(), whole)  # a batch script is no task of a step

    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not here: four processes not tested")
    def test_four_processes_under_mpirun(self):
        axes = ("--axis=model.moe.top_k=1..13", "--axis=routing.skew=0,0.5")
        whole = self.sweep("whole.csv", *axes).read_bytes()
        out = self.folder / "mpi.csv"
        mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "4"]
        result = subprocess.run(
            [*mpirun, HEADWAY, "sweep", SCENARIO, *axes, "-o", str(out)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=CLEAN,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        shards = sorted(self.folder.glob("mpi.*of4.csv"))
        self.assertEqual(len(shards), 4)
        self.assertEqual(self.run_well("merge", *shards).stdout.encode(), whole)

    def test_axes_that_cannot_be(self):
        for axis, fragment in {
            "model.moe.k=1": "did you mean 'model.moe.top_k'?",
            "top_k=1": "did you mean 'model.moe.top_k'?",
            "plans.hq.zero1=true": "did you mean 'plans.hp'?",
            "cluster.fabric.nic=100": "has no unit",
            "model.moe.top_k=0": "out of range",
            "model.moe.top_k=1,1": "twice",
            "model.moe.top_k": "PATH=VALUES",
            "model.moe.top_k=": "empty value",
            "routing.skew=nan": "not a finite number",
            "cluster=dgx_h10": "did you mean 'dgx_h100'?",
            "equal_batch.nods=1": "did you mean 'equal_batch.nodes'?",
            "cluster.nodes=1..1048576,1": "at most 1000000",
            "plans[x].zero1=true": "NAME[0]",
        }.items():
            self.expect_bad_input("sweep", SCENARIO, "--axis", axis, fragment=fragment)
        many = [f"--axis={key}=1..100000" for key in ("batch.sequence_length", "model.hidden")]
        self.expect_bad_input("sweep", SCENARIO, *many, fragment="too many points")
        self.expect_bad_input("sweep", SCENARIO, fragment="no axis")

    def test_the_block_of_a_file_and_its_replacement(self):
        text = Path(SCENARIO).read_text() + (
            "sweep:\n  - {axis: model.moe.top_k, values: [1, 2]}\n"
            "  - {axis: routing.skew, values: 0..1:0.5}\n"
        )
        scenario = self.folder / "s.yaml"
        scenario.write_text(text)
        out = self.folder / "s.csv"
        self.run_well("sweep", scenario, "-o", out)
        self.assertEqual(len(rows_of(out)), 2 * 3 * 3)
        self.run_well("sweep", scenario, "-o", out, "--restart", "--axis", "routing.skew=0.7")
        self.assertEqual({r["routing.skew"] for r in rows_of(out)}, {"0.7"})


if __name__ == "__main__":
    HEADWAY, SCENARIO = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1])
