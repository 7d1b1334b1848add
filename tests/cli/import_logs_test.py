"""headway calibrate from logs of nccl-tests, and what it refuses to read or write over."""

import os
import re
import unittest

from calibrate_frame import LOGS, ROOT, SCENARIO, InAFolder

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


if __name__ == "__main__":
    unittest.main()
