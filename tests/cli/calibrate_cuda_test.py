"""headway calibrate --device cuda, with programs that make up what they measure."""

import os
import subprocess
import sys
import tempfile
import time
import unittest

HEADWAY = sys.argv.pop(1)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


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
