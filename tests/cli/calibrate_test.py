"""headway calibrate and verify: profiles that read back, bad input that is named, exit codes."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

HEADWAY = sys.argv.pop(1)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCENARIO = os.path.join(ROOT, "scenarios", "cpu_small.yaml")
LOGS = os.path.join(ROOT, "tests", "fit", "logs")


class InAFolder(unittest.TestCase):
    """A folder of its own, and the name of the profile to write there."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = os.path.join(self.folder.name, "mine.yaml")

    def tearDown(self):
        self.folder.cleanup()

    def headway(self, *words):
        return subprocess.run([HEADWAY, *words], capture_output=True, text=True, timeout=300)


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


TWO_NODES = """
model: {preset: mixtral_8x7b, num_layers: 1}
cluster: {preset: dgx_h100, name: a3mega, nodes: 2, fabric: {nic: 25 GB/s}}
batch: {sequence_length: 4096}
plans: [{name: ep, expert_parallel: {}, group_size: 8, overlap_grad_all_reduce: false}]
"""
TWO_GTX = """
model: {preset: olmoe_1b_7b, num_layers: 1}
cluster: {name: two gtx1080, device: {name: NVIDIA GeForce GTX 1080 Ti, peak_matmul: 11 TFLOP/s,
  memory_bandwidth: 484 GB/s, memory: 11 GB}, nodes: 1, gpus_per_node: 2,
  pcie: {bandwidth: 16 GB/s, latency: 3 us}}
batch: {sequence_length: 4096}
plans: [{name: ep, expert_parallel: {}, group_size: 1, zero1: true}]
"""
TWO_L40S = """
model: {preset: olmoe_1b_7b}
cluster: {preset: 8x_l40s_pcie}
batch: {sequence_length: 4096}
plans: [{name: ep, expert_parallel: {}, group_size: 2, zero1: true}]
"""


class ImportLogs(InAFolder):
    def scenario(self, text):
        file = os.path.join(self.folder.name, "scenario.yaml")
        with open(file, "w") as out:
            out.write(text)
        return file

    def imported(self, log, *words):
        log = os.path.join(LOGS, log)
        return self.headway("calibrate", "--from-nccl-tests", log, "-o", self.out, *words)

    def profile(self):
        with open(self.out) as file:
            return file.read()

    def milliseconds(self, scenario, phase):
        words = ["--profile", self.out, "--plan", "ep", "--phase", phase]
        done = self.headway("explain", scenario, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        times = re.findall(r"([\d.]+) (us|ms)", done.stdout)
        return [float(t) * (1 if unit == "ms" else 1e-3) for t, unit in times]

    def assert_has(self, times, wanted):
        self.assertTrue(any(abs(t / wanted - 1) < 2e-3 for t in times), (times, wanted))

    def test_times_are_the_logs_own_whatever_link_the_base_had(self):
        # T of the phase's bytes between two rows, or on the line through the last two, unscaled: nothing says that the
        # machine of the log had another link than this cluster.
        reduce = "all_reduce_2x8_h100_25GBps.log"
        for log, words, scenario, phase, wanted in (
            (reduce, ["h100_public"], TWO_NODES, "grad_all_reduce", 7.534),
            (
                "all_gather_2xgtx1080.log",
                ["h100_public", "--path", "pcie"],
                TWO_GTX,
                "param_all_gather",
                290.5,
            ),
            ("alltoall_2xl40s.log", ["l40s_public"], TWO_L40S, "dispatch", 45.2),
            ("alltoall_2xl40s.log", ["l40s_public", "--path", "pcie"], TWO_L40S, "dispatch", 45.2),
        ):
            done = self.imported(log, "--base", *words)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("fills", done.stderr)
            self.assertIn("the link is not known", done.stderr)
            self.assert_has(self.milliseconds(self.scenario(scenario), phase), wanted)

    def test_a_stated_link_scales_to_the_clusters(self):
        # Measured at 25 GB/s a rank, priced on 50: the time above the floor halves, which is where the line
        # through the log's first two rows (64 MiB and 1 GiB) meets no bytes.
        log = "all_reduce_2x8_h100_25GBps.log"
        done = self.imported(log, "--base", "h100_public", "--link", "25 GB/s")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("link: 25 GB/s", self.profile())
        floor, whole = 1.2616 - (6.7590 - 1.2616) / 15, 7.534
        fast = self.scenario(TWO_NODES.replace("25 GB/s", "50 GB/s"))
        self.assert_has(self.milliseconds(fast, "grad_all_reduce"), floor + (whole - floor) / 2)
        # The same from the cluster of a scenario.
        done = self.imported(log, self.scenario(TWO_NODES), "--base", "h100_public")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("link: 25 GB/s", self.profile())

    def test_a_profile_without_base_reads_back(self):
        done = self.imported("alltoall_perf_2.13_h100.log")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = self.headway("predict", self.scenario(TWO_NODES), "--profile", self.out)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, "no curve|no .*curve|has no")  # what it lacks is named

    def test_what_is_typed_in_vain_is_refused(self):
        log = ["calibrate", "--from-nccl-tests", os.path.join(LOGS, "alltoall_perf_2.13_h100.log")]
        timeline = os.path.join(self.folder.name, "t.csv")
        cpu = ["calibrate", SCENARIO, "--device", "cpu"]
        for words, found in (
            ([*log, "--tokens", "4"], "--tokens"),
            ([*log, "--grid", "full"], "--grid"),
            ([*log, "--profile", "h100_public"], "--profile"),
            ([*log, "--link", "fast"], "--link"),
            ([*log, "--path", "spine"], "all ranks are on one host"),
            ([*cpu, "--from", timeline], "both --device cpu and --from"),
            ([*cpu, "--path", "nic"], "--path"),
            ([*cpu, "--max-seconds", "1"], "--max-seconds"),
            (["calibrate", "--from-kernel-bench", "x.csv", SCENARIO], "a scenario"),
            (["calibrate", SCENARIO, "--from-grid", "x.csv"], "no --multiprocessors"),
        ):
            done = self.headway(*words, "-o", self.out)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(found, done.stderr)
            self.assertFalse(os.path.exists(self.out))
        verify = ["verify", SCENARIO, "--profile", "h100_public"]
        for words, found in (
            ([], "--measured CSV, --run, --lab, --grid CSV"),
            (["--grid", "g.csv", "--measured", "m.csv"], "both --grid and --measured"),
            (["--run", "--measured", "m.csv"], "both --run and --measured"),
            (["--measured", "m.csv", "--repeats", "3"], "--repeats"),
            (["--run", "--tolerance", "nan"], "--tolerance"),
            (["--run", "--min-time", "-1"], "--min-time"),
        ):
            done = self.headway(*verify, *words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(found, done.stderr)

    def test_a_pipe_is_no_file_to_read(self):
        pipe = os.path.join(self.folder.name, "pipe")
        os.mkfifo(pipe)
        calibrate = ["calibrate", SCENARIO, "-o", self.out]
        verify = ["verify", SCENARIO, "--profile", "h100_public"]
        paper = os.path.join(ROOT, "scenarios", "paper_4gpu.yaml")
        simulate = ["simulate", paper, "--plan", "hp", "--layers", "1"]
        trace = os.path.join(self.folder.name, "t.json")
        for words in (
            [*calibrate, "--from", pipe],
            [*calibrate, "--multiprocessors", "132", "--from-grid", pipe],
            [*calibrate, "--from-nccl-tests", pipe],
            [*calibrate, "--device", "cpu", "--samples", pipe],
            [*verify, "--measured", pipe],
            [*verify, "--grid", pipe],
            [*simulate, "--trace", trace, "--trace-with", pipe],
            ["merge", pipe],
            ["plot", pipe, "-o", "x.png"],
        ):
            done = self.headway(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn("not a regular file", done.stderr, words)

    def test_no_verb_writes_over_what_it_reads(self):
        scenario = self.scenario(TWO_NODES)
        profile = os.path.join(self.folder.name, "p.yaml")
        self.assertEqual(self.headway("show", "profiles/h100_public", "-o", profile).returncode, 0)
        link = os.path.join(self.folder.name, "link.yaml")
        os.symlink(scenario, link)
        for words in (
            ["predict", scenario, "--profile", profile, "-o", scenario],
            ["predict", scenario, "--profile", profile, "-o", profile],
            ["predict", scenario, "--profile", profile, "-o", link],
            ["show", scenario, "-o", scenario],
            ["report", scenario, "--profile", profile, "-o", scenario],
            ["simulate", scenario, "--profile", profile, "--trace", scenario],
            ["explain", scenario, "--profile", profile, "-o", scenario],
            ["verify", scenario, "--profile", profile, "--run", "--csv", profile],
            ["calibrate", scenario, "--device", "cpu", "-o", scenario],
            ["merge", scenario, "-o", scenario],
        ):
            done = self.headway(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn("another file", done.stderr, words)
            with open(scenario) as file:
                self.assertEqual(file.read(), TWO_NODES)

    def test_no_file_of_a_scenario_is_written_over(self):
        cluster, weights, scenario = (
            os.path.join(self.folder.name, name) for name in ("c.yaml", "w.csv", "s.yaml")
        )
        self.assertEqual(self.headway("show", "clusters/dgx_h100", "-o", cluster).returncode, 0)
        with open(weights, "w") as file:
            file.write(",".join(["1"] * 64) + "\n")
        with open(scenario, "w") as file:
            file.write(
                "model: {preset: olmoe_1b_7b}\ncluster: c.yaml\nbatch: {sequence_length: 1024}\n"
                "routing: {skew: {kind: histogram, file: w.csv}}\n"
                "plans: [{name: ep, expert_parallel: {}, group_size: 8}]\n"
                "profile: {preset: h100_public}\n"
            )
        self.assertEqual(self.headway("predict", scenario).returncode, 0)
        for part in (cluster, weights):
            with open(part) as file:
                before = file.read()
            for words in (
                ["predict", scenario, "-o", part],
                ["simulate", scenario, "--trace", part],
                ["sweep", scenario, "--axis", "model.moe.top_k=1,2", "-o", part],
            ):
                done = self.headway(*words)
                self.assertEqual(done.returncode, 2, words)
                self.assertIn("what the scenario is made of", done.stderr, words)
                with open(part) as file:
                    self.assertEqual(file.read(), before)


class Verify(unittest.TestCase):
    """Measured timelines that are none, or of something else."""

    HEAD = "# headway timeline 1\n# scenario: {}\n# profile: CPU\n# version: 0\n# seed: 0\n"
    COLUMNS = (
        "source,plan,rank,layer,micro_batch,pass,phase,count,begin_s,duration_s,low_s,high_s,bytes,"
        "flops,samples,bottleneck\n"
    )

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.folder.cleanup()

    def verify(self, text, *words):
        file = os.path.join(self.folder.name, "m.csv")
        with open(file, "w") as out:
            out.write(text)
        command = [HEADWAY, "verify", SCENARIO, "--profile", "h100_public", "--measured", file]
        return subprocess.run([*command, *words], capture_output=True, text=True)

    def rows(self, source, plan="ep_naive", ranks=2):
        return "".join(
            f"{source},{plan},{r},0,0,forward,route,1,0,0.001,0,0,0,0,1,\n" for r in range(ranks)
        )

    def test_what_is_no_measurement_of_this_scenario_is_refused(self):
        head = self.HEAD.format("cpu_small") + self.COLUMNS
        sized = self.HEAD.format("cpu_small") + "# size: ep_naive,2,77\n" + self.COLUMNS
        for text, found in (
            (head + "# end: 0 rows\n", "no measured rows"),
            (head + self.rows("predicted") + "# end: 2 rows\n", "no measured rows"),
            (head + self.rows("measured", ranks=3) + "# end: 3 rows\n", "on 3 ranks"),
            (head + self.rows("measured", plan="other") + "# end: 2 rows\n", "plan 'other'"),
            (sized + self.rows("measured") + "# end: 2 rows\n", "of 77 tokens a rank"),
            (
                self.HEAD.format("another")
                + self.COLUMNS
                + self.rows("measured")
                + "# end: 2 rows\n",
                "scenario 'another'",
            ),
        ):
            done = self.verify(text)
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
            self.assertIn(found, done.stderr)

    def test_a_run_of_whole_steps_is_judged_by_the_step(self):
        scenario = os.path.join(os.path.dirname(SCENARIO), "step_text.yaml")
        of = [scenario, "--profile", "h200_layers"]
        asked = [HEADWAY, "predict", *of, "--plan", "hp", "--format", "json"]
        done = subprocess.run(asked, capture_output=True, text=True)
        predicted = json.loads(done.stdout)["plans"][0]
        head = self.HEAD.format("step_text") + "# size: hp,2,1024\n"
        step = "# run: hp,1980,,1e9,0,1\n# step: hp,{},0.001,1,15\n"
        rows = self.COLUMNS + self.rows("measured", plan="hp") + "# end: 2 rows\n"
        files = {}
        for name, factor in (("twice", 2), ("same", 1)):
            files[name] = os.path.join(self.folder.name, name + ".csv")
            with open(files[name], "w") as out:
                out.write(head + step.format(factor * predicted["step_time_s"]) + rows)
        files["layers"] = os.path.join(self.folder.name, "layers.csv")
        with open(files["layers"], "w") as out:
            out.write(head + rows)

        def verify(*names, tolerance="25"):
            measured = [word for name in names for word in ("--measured", files[name])]
            return subprocess.run(
                [HEADWAY, "verify", *of, *measured, "--tolerance", tolerance, "--min-time", "1e9"],
                capture_output=True,
                text=True,
            )

        # Twice as long as predicted: 50 % too little was said. The pass of the one phase is off too.
        done = verify("twice", tolerance="49")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"step: predicted .*, -50\.0 %, outside its interval")
        memory = 100 * (predicted["memory"]["allocated_bytes"] / 1e9 - 1)
        self.assertIn(f"{memory:+.1f} %", done.stdout)
        self.assertRegex(
            verify("same").stdout, r"step: predicted .*, [+-]0\.0 %, inside its interval"
        )
        # The median of both: 1.5 times as long.
        self.assertIn("-33.3 %", verify("twice", "same").stdout)
        mixed = verify("same", "layers")
        self.assertEqual(mixed.returncode, 2, mixed.stdout)
        self.assertIn("whole steps and layers alone", mixed.stderr)
        # A run of one micro-batch says nothing of steps of two.
        with open(scenario) as text:
            of[0] = os.path.join(self.folder.name, "step_text.yaml")
            with open(of[0], "w") as out:
                out.write(text.read().replace("batch: {", "batch: {num_micro_batches: 2, "))
        two = verify("same")
        self.assertEqual(two.returncode, 2, two.stdout)
        self.assertIn("steps of 1 micro-batches; accepted: steps of 2", two.stderr)


# headway-grid and headway-comm as calibrate sees them: what they are asked goes to calls.txt, what they
# measure is made up, and what they are to do wrong stands in fault.txt.
FAKE = r"""#!/usr/bin/env python3
import os, signal, sys
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
name = os.path.basename(sys.argv[0])
if os.path.exists(os.path.join(here, "wait.txt")):
    open(os.path.join(here, "pid.txt"), "w").write("%d\n" % os.getpid())
    signal.pause()
open(os.path.join(here, "calls.txt"), "a").write(name + " " + " ".join(words) + "\n")
fault_file = os.path.join(here, "fault.txt")
fault = open(fault_file).read() if os.path.exists(fault_file) else ""
value = lambda option: [words[i + 1] for i, w in enumerate(words) if w == option]
ranks = int(value("--ranks")[0])
if fault == "refuse":
    print("headway-grid: error: no GPU here", file=sys.stderr)
    sys.exit(2)
if name == "headway-comm":
    for kind, program in (("alltoall", "alltoall_perf"), ("sendrecv", "sendrecv_perf"), ("all_reduce", "all_reduce_perf")):
        with open(value("--out")[0] + "_" + kind + ".log", "w") as out:
            out.write("# Collective test starting: %s\n# Using devices\n" % program)
            for r in range(ranks):
                out.write("#  Rank %2d Group  0 Pid %6d on box device  0 [0x01] NVIDIA X\n" % (r, r))
            out.write("#\n#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n")
            out.write("#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n")
            for size in (1024, 65536, 4194304):
                bus = {"alltoall": 1 - 1 / ranks, "sendrecv": 1, "all_reduce": 2 - 2 / ranks}[kind]
                rate = size / (10 + size / 1e3) / 1e3
                half = "%9.2f %7.2f %7.2f    N/A" % (10 + size / 1e3, rate, bus * rate)
                redop = "none" if kind == "alltoall" else "sum"
                out.write("%12d %13d     float %7s      -1%s%s\n" % (size, size // 4, redop, half, half))
    sys.exit(0)
if value("--overheads"):
    with open(value("--overheads")[0], "w") as out:
        out.write("quantity,bytes,value\ndevice,0,NVIDIA X\ndriver,0,1.2\ncuda,0,13000\nnccl,0,2.28\nclock_mhz,0,1500\n")
        out.write("multiprocessors,0,%d\nlaunch,0,2e-06\nhost_sync,0,1e-05\ncopy,4000000,4e-06\n" % (132 // ranks))
    sys.exit(0)
done = 0
for grid, file in zip(value("--grid"), value("-o")):
    have = open(file).read() if os.path.exists(file) else ""
    out = open(file, "a")
    if not have:
        out.write("kind,tokens,hidden,heads,head_width,experts,top_k,expert_width,zipf,ranks,rank,pass,phase,"
                  "median_us,p10_us,p90_us,bytes,peak_bytes,clock_mhz,throttle\n")
    for layer in open(grid).read().split()[1:]:
        t = int(layer.split(",")[1])
        for _ in range(have.count(layer) // (3 * ranks), int(value("--passes")[0])):
            for rank in range(ranks):
                for step in ("forward,route", "forward,permute", "backward,route"):
                    out.write("%s,%d,%d,%s,%.3f,1,1,0,1000,1500,\n" % (layer, ranks, rank, step, 10 + t / 100))
            if fault == "kill" and done == 3:
                out.write(layer + ",1,0,forw")
                out.close()
                os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        print("layers %d of 9" % done, flush=True)
"""


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 s in vain"
        time.sleep(0.02)


def has_ended(pid):
    """Gone, or a zombie that nobody has asked about."""
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


class CalibrateCuda(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = os.path.join(self.folder.name, "mine.yaml")
        self.samples = os.path.join(self.folder.name, "mine_samples")
        self.programs = os.path.join(self.folder.name, "programs")
        os.mkdir(self.programs)
        for name in ("headway-grid", "headway-comm"):
            file = os.path.join(self.programs, name)
            open(file, "w").write(FAKE)
            os.chmod(file, 0o755)
        self.grid = self.write_grid("layers.csv", range(1, 9))

    def tearDown(self):
        self.folder.cleanup()

    def write_grid(self, name, tokens):
        file = os.path.join(self.folder.name, name)
        with open(file, "w") as out:
            out.write("kind,tokens,hidden,heads,head_width,experts,top_k,expert_width,zipf\n")
            for t in tokens:
                out.write(f"ep,{512 * t},1024,1,0,64,4,256,0\n")
        return file

    def calibrate(self, *words, ranks=1):
        name = "gpu_layer.yaml" if ranks == 1 else "gpu_layer_4.yaml"
        command = [HEADWAY, "calibrate", os.path.join(ROOT, "scenarios", name), "--device", "cuda"]
        command += ["--ranks", str(ranks), "--base", "h200_public", "-o", self.out]
        command += ["--programs", self.programs, "--grid", self.grid, *words]
        return subprocess.run(command, capture_output=True, text=True)

    def calls(self):
        return open(os.path.join(self.programs, "calls.txt")).read().splitlines()

    def fault(self, kind):
        open(os.path.join(self.programs, "fault.txt"), "w").write(kind)

    def test_measures_fits_and_writes_the_profile(self):
        done = self.calibrate()
        self.assertEqual(done.returncode, 0, done.stderr)
        text = open(self.out).read()
        for wanted in ("device: NVIDIA X", 'driver: "1.2"', "kind: measured", "phase: route"):
            self.assertIn(wanted, text)
        self.assertIn("multiprocessors: 132", text)
        self.assertIn("host_sync: 10", text)
        self.assertEqual(len(self.calls()), 2, "one child for overheads, one for layers")
        scenario = os.path.join(ROOT, "scenarios", "gpu_layer.yaml")
        explained = subprocess.run(
            [
                HEADWAY,
                "explain",
                scenario,
                "--profile",
                self.out,
                "--plan",
                "ep_naive",
                "--phase",
                "route",
            ],
            capture_output=True,
            text=True,
        )
        self.assertIn("phase curve", explained.stdout + explained.stderr)

    def test_ranks_bring_exchanges_and_their_share_of_the_gpu(self):
        done = self.calibrate(ranks=4)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = open(self.out).read()
        self.assertIn("multiprocessors: 33", text)
        for collective in ("send_recv", "all_reduce"):
            self.assertIn(f"collective: {collective}\n    path: pcie\n    num_ranks: 4", text)
        self.assertEqual([c.split()[0] for c in self.calls()].count("headway-comm"), 1)

    def test_a_second_time_nothing_is_measured_again(self):
        self.assertEqual(self.calibrate().returncode, 0)
        before = self.calls()
        os.remove(self.out)
        self.assertEqual(self.calibrate().returncode, 0)
        self.assertEqual(self.calls(), before)
        self.assertTrue(os.path.exists(self.out))

    def test_passes_that_are_missing_are_run(self):
        self.assertEqual(self.calibrate("--passes", "1").returncode, 0)
        self.assertEqual(self.calibrate("--passes", "3").returncode, 0)
        rows = open(os.path.join(self.samples, "layers.csv")).read().splitlines()[1:]
        self.assertEqual(len(rows), 8 * 3 * 3)

    def test_what_was_cut_off_is_continued(self):
        self.fault("kill")
        done = self.calibrate()
        self.assertEqual(done.returncode, 2)
        self.assertIn("ended by signal 9", done.stderr)
        self.assertIn("goes on from there", done.stderr)
        self.assertFalse(os.path.exists(self.out))
        self.fault("")
        self.assertEqual(self.calibrate().returncode, 0)
        rows = open(os.path.join(self.samples, "layers.csv")).read().splitlines()[1:]
        self.assertEqual(len(rows), 8 * 3 * 2, "both passes of every layer, none cut")
        self.assertTrue(all(r.count(",") == 19 for r in rows))

    def test_what_measures_ends_with_a_calibration_that_is_killed(self):
        open(os.path.join(self.programs, "wait.txt"), "w").close()
        scenario = os.path.join(ROOT, "scenarios", "gpu_layer.yaml")
        command = [HEADWAY, "calibrate", scenario, "--device", "cuda", "--ranks", "1"]
        command += ["--base", "h200_public", "-o", self.out, "--programs", self.programs]
        calibration = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        pid_file = os.path.join(self.programs, "pid.txt")
        wait_until(lambda: os.path.exists(pid_file) and open(pid_file).read().endswith("\n"))
        child = int(open(pid_file).read())
        calibration.kill()
        calibration.wait()
        wait_until(lambda: has_ended(child))

    def test_layers_that_are_held_out_are_run_and_not_fitted(self):
        held = self.write_grid("others.csv", (20, 21))
        self.assertEqual(self.calibrate("--hold-out", held).returncode, 0)
        with_others = open(self.out).read()
        self.assertTrue(os.path.exists(os.path.join(self.samples, "others.csv")))
        self.assertIn("16 samples", with_others)
        self.assertNotIn("20 samples", with_others)

    def test_failures_are_named(self):
        self.fault("refuse")
        done = self.calibrate()
        self.assertEqual(done.returncode, 2)
        self.assertIn("no GPU here", done.stderr)
        os.remove(os.path.join(self.programs, "headway-grid"))
        done = self.calibrate()
        self.assertEqual(done.returncode, 2)
        self.assertIn("no headway-grid", done.stderr)
        self.assertIn("cmake --preset cuda", done.stderr)

    def test_samples_of_other_ranks_are_refused(self):
        self.assertEqual(self.calibrate().returncode, 0)
        done = self.calibrate(ranks=4)
        self.assertEqual(done.returncode, 2)
        self.assertIn("samples of 1 ranks", done.stderr)


if __name__ == "__main__":
    unittest.main()
