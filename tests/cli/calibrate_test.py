"""headway calibrate on this machine: profiles that read back, runs that are verified, exit codes."""

import json
import os
import re
import subprocess
import unittest

from calibrate_frame import HEADWAY, LOGS, ROOT, SCENARIO, InAFolder


class Calibrate(InAFolder):
    def small_scenario(self, scenario=SCENARIO, length=1024):
        small = os.path.join(self.folder.name, "small.yaml")
        with open(scenario) as file:
            text = file.read()
        for big, little in (
            ("hidden: 128", "hidden: 32"),
            ("width: 256", "width: 32"),
            (f"length: {length}", "length: 32"),
        ):
            self.assertIn(big, text)
            text = text.replace(big, little)
        with open(small, "w") as file:
            file.write(text)
        return small

    def test_logs_become_curves_of_a_profile_that_reads_back(self):
        logs = []
        for name in ("alltoall_perf_2.13_h100.log", "reduce_scatter_2.18.json"):
            logs += ["--from-nccl-tests", os.path.join(LOGS, name)]
        done = self.headway("calibrate", "--base", "h100_public", "-o", self.out, *logs)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = open(self.out).read()
        self.assertIn("nccl-tests log alltoall_perf_2.13_h100.log", text)
        self.assertIn("kind: measured", text)
        # What came from the logs and what from the base is said; the base's NCCL is not claimed.
        note = next(line for line in text.splitlines() if line.strip().startswith("note:"))
        new, kept = note.split("From h100_public (public, NVIDIA H100 80GB HBM3): ")
        for curve in ("all_to_all over nvlink (8 ranks)", "reduce_scatter over nvlink (8 ranks)"):
            self.assertIn(curve, new)
        for curve in ("dense_gemm", "all_reduce over nvlink"):
            self.assertIn(curve, kept)
            self.assertNotIn(curve, new)
        self.assertNotIn("\n  nccl:", text)
        paper = os.path.join(ROOT, "scenarios", "paper_4gpu.yaml")
        predicted = self.headway("predict", paper, "--profile", self.out)
        self.assertEqual(predicted.returncode, 0, predicted.stderr)

    def test_overheads_become_the_host_of_a_profile(self):
        """The shipped profile of two GPUs again; without the host's times its plans are refused."""
        two = os.path.join(ROOT, "docs", "results", "validation_gpu", "two")
        names = sorted(
            n for n in os.listdir(two) if n.startswith("overheads") and "one_gpu" not in n
        )
        files = [os.path.join(two, name) for name in names]
        words = [word for file in files for word in ("--from-overheads", file)]
        base = ("calibrate", "--base", "h200_layers", "-o", self.out)
        done = self.headway(*base, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        shipped = open(os.path.join(ROOT, "scenarios", "profiles", "h200_nvlink2.yaml")).read()
        overheads = shipped[shipped.index("overheads:") :].partition("source:")[0]
        self.assertIn(overheads, open(self.out).read())
        step = os.path.join(ROOT, "scenarios", "grids", "steps_mixed", "step_1_01.yaml")
        self.assertEqual(self.headway("predict", step, "--profile", self.out).returncode, 0)
        refused = self.headway("predict", step, "--profile", "h200_layers")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("overheads.host_kernel", refused.stderr)
        both = self.headway(*base, *words, "--device", "cpu", SCENARIO)
        self.assertEqual(both.returncode, 2)
        self.assertIn("--from-overheads", both.stderr)

    def test_a_measured_timeline_refits_the_curves_it_holds(self):
        # calibrate -> run other tokens -> refit from that Timeline -> verify. The new profile names the device that ran, and
        # what is the base's; a phase of one sample is given back as it was measured.
        scenario = self.small_scenario()
        base = os.path.join(self.folder.name, "base.yaml")
        small = ["--tokens", "64", "--ranks", "2"]
        measured = os.path.join(self.folder.name, "measured.csv")
        run = os.path.join(os.path.dirname(HEADWAY), "headway-run")
        refit = [HEADWAY, "calibrate", scenario]
        for words in (
            [HEADWAY, "calibrate", scenario, "--device", "cpu", "--passes", "1", "-o", base],
            [run, scenario, *small, "--plan", "ep_naive", "--repeats", "3", "-o", measured],
        ):
            done = subprocess.run(words, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        with open(measured) as file:
            timeline = file.read()
        own = re.search("^# profile: (.*)$", timeline, re.MULTILINE)[1]
        # Names that YAML takes as they are and names that it must quote; this machine's last, for what follows.
        for device in (
            "AMD EPYC 9654 96-Core",
            "Intel(R) Xeon(R) Platinum 8480+",
            "X: #1 @ 2 GHz",
            own,
        ):
            with open(measured, "w") as file:
                file.write(timeline.replace(f"# profile: {own}\n", f"# profile: {device}\n"))
            words = [*refit, "--from", measured, *small, "--base", base, "-o", self.out]
            done = subprocess.run(words, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            text = open(self.out).read()
            written = re.search("^ *device: (.*)$", text, re.MULTILINE)[1]
            self.assertEqual(json.loads(written) if written.startswith('"') else written, device)
            # It reads back; a CPU's calibration has no attention, which a whole step needs.
            predicted = self.headway("predict", scenario, "--profile", self.out)
            self.assertIn("no curve for kernel attention", predicted.stderr)
        note = next(line for line in text.splitlines() if line.strip().startswith("note:"))
        new, kept = note.split("From base (measured")
        for curve in ("grouped_gemm", "router", "gather", "all_to_all over pcie (2 ranks)"):
            self.assertIn(curve, new)
        for curve in ("streaming", "fused_expert", "dense_gemm"):
            self.assertIn(curve, kept)
        words = ["verify", scenario, "--profile", self.out, "--measured", measured, *small]
        done = self.headway(*words, "--tolerance", "1000000")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("the run was on", done.stderr)
        self.assertRegex(done.stdout, r"(?m)^count_exchange +forward .*[+-]0\.0 % +yes$")
        # The same comparison fails where next to nothing is tolerated.
        words += ["--min-time", "0", "--tolerance", "0.0000001"]
        self.assertEqual(self.headway(*words).returncode, 1)

    def test_node_dedup_is_calibrated_run_and_verified(self):
        # Two nodes of two ranks: both paths get a curve, all plans run on four ranks, and every phase of the runs is
        # predicted but the gates' gradients, which a profile without that phase leaves out.
        nodes = os.path.join(ROOT, "scenarios", "cpu_nodes.yaml")
        small = self.small_scenario(nodes, 512)
        measured = os.path.join(self.folder.name, "measured.csv")
        run = os.path.join(os.path.dirname(HEADWAY), "headway-run")
        calibrate = [HEADWAY, "calibrate", small, "--device", "cpu", "--ranks", "4", "--passes"]
        for words in (
            [*calibrate, "1", "-o", self.out],
            [run, small, "--tokens", "40", "--repeats", "2", "-o", measured],
        ):
            done = subprocess.run(words, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.out) as profile:
            self.assertIn("path: nic", profile.read())
        words = ["verify", small, "--profile", self.out, "--measured", measured]
        both = os.path.join(self.folder.name, "both.csv")
        words += ["--tokens", "40", "--tolerance", "1000000000", "--csv", both]
        done = self.headway(*words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with open(both) as file:
            rows = file.read().splitlines()
        for source in ("predicted,", "measured,"):
            self.assertTrue(any(row.startswith(source) for row in rows), source)
        of_nodes = done.stdout[done.stdout.index("plan ep_rank:") :]
        self.assertIn("plan ep_node:", of_nodes)
        for phase in ("count_exchange", "dispatch", "regroup", "combine", "unpermute"):
            self.assertRegex(of_nodes, rf"(?m)^{phase} +forward ")
        self.assertIn("measured only: count_exchange backward", of_nodes)

    def test_bad_input_is_named_and_leaves_no_file(self):
        bad = os.path.join(LOGS, "bad", "alltoall_cut_row.log")
        for words, message in (
            (["--from-nccl-tests", bad], "alltoall_cut_row.log:17"),
            ([], "nothing to calibrate from"),
            (["--device", "tpu"], "cpu, cuda"),
            (["--device", "cuda"], "scenario"),
        ):
            done = self.headway("calibrate", "-o", self.out, *words)
            self.assertEqual(done.returncode, 2)
            self.assertIn(message, done.stderr)
            self.assertFalse(os.path.exists(self.out))

    def test_a_calibration_goes_on_where_it_stopped(self):
        # One pass, then two: the second run adds a pass to the samples of the first. Then nothing is left to measure, so
        # that the curves are those of the file, and the same again.
        samples = os.path.join(self.folder.name, "samples.csv")
        small = self.small_scenario()
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
        text = "".join(lines)
        self.assertIn("dtype: fp32", text)  # in which no GPU's profile has curves
        open(scenario, "w").write(text.replace("dtype: fp32", "dtype: bf16"))
        done = self.headway(
            "verify", scenario, "--profile", profile, "--run", "--repeats", "1", "--tokens", "256"
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("BEYOND TOLERANCE", done.stdout)
        self.assertIn("warning: profile", done.stderr)


if __name__ == "__main__":
    unittest.main()
