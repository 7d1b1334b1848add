#!/usr/bin/env python3
"""Figures of Timeline CSVs, sweeps and tables: drawn when the results fit, refused with a message else.

usage: figures_test.py PLOT_SCRIPT   (exit code 77: skipped, no matplotlib here)
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PLOT = ""
PYTHON = ""  # one that has matplotlib
HEAD = """\
# headway timeline 1
# scenario: two phases
# profile: by hand
# version: 0
# seed: 0
source,plan,rank,layer,micro_batch,pass,phase,count,begin_s,duration_s,low_s,high_s,bytes,flops,samples,bottleneck
"""


def timeline(*rows: str) -> str:
    return HEAD + "".join(row + "\n" for row in rows) + f"# end: {len(rows)} rows\n"


# Predicted 2 ms and 3 ms, measured on two ranks; the slower ones take 2.5 ms and 3 ms.
BOTH = timeline(
    "predicted,ep,-1,0,0,forward,dispatch,4,0,0.002,0.0018,0.0022,1e6,0,0,nvlink",
    "predicted,ep,-1,0,0,forward,expert,4,0,0.003,0.0027,0.0033,0,1e9,0,flops",
    "measured,ep,0,0,0,forward,dispatch,1,0,0.0015,0.0014,0.0016,1e6,0,9,",
    "measured,ep,1,0,0,forward,dispatch,1,0,0.0025,0.0024,0.0026,1e6,0,9,",
    "measured,ep,0,0,0,forward,expert,1,0,0.003,0.0029,0.0031,0,1e9,9,",
    "measured,ep,1,0,0,forward,expert,1,0,0.001,0.0009,0.0011,0,1e9,9,",
)


PIPELINE = timeline(
    "predicted,ep,-1,0,0,forward,expert,4,0,0.003,0.0027,0.0033,0,1e9,0,flops",
    "predicted,ep,0,0,0,forward,pipeline_stage,1,0,0.002,0.002,0.002,0,0,0,",
    "predicted,ep,0,0,0,backward,pipeline_bubble,1,0.002,0.002,0.002,0.002,0,0,0,",
    "predicted,ep,0,0,0,backward,pipeline_stage,1,0.004,0.002,0.002,0.002,0,0,0,",
    "predicted,ep,0,0,0,backward,pipeline_weight,1,0.006,0.002,0.002,0.002,0,0,0,",
    "predicted,ep,1,2,0,forward,pipeline_bubble,1,0,0.001,0.001,0.001,0,0,0,",
    "predicted,ep,1,2,0,forward,pipeline_p2p,1,0.001,0.001,0.001,0.001,0,0,0,",
    "predicted,ep,1,2,0,forward,pipeline_stage,1,0.002,0.005,0.005,0.005,0,0,0,",
    "predicted,ep,1,2,0,update,pipeline_bubble,1,0.007,0.001,0.001,0.001,0,0,0,",
)


SWEEP_COLUMNS = (
    "plan,layer,source,status,step_time_s,step_low_s,step_high_s,speedup_vs_baseline,"
    "sent_bytes_max,memory_peak_bytes,memory_capacity_bytes"
)


def sweep(axes: str, *rows: str) -> str:
    head = "# headway sweep 1\n# scenario: by hand\n# seed: 0\n"
    lines = [f"{axes},{SWEEP_COLUMNS}", *rows]
    return head + "".join(line + "\n" for line in lines) + f"# end: {len(rows)} rows\n"


# Names tell nothing: the one with "hp" in it is expert parallel.
LAYERS = {
    "ep": "expert_parallel",
    "hp": "head_parallel",
    "not-hp": "expert_parallel",
    "heads": "head_parallel",
}


def point(axes: str, plan: str, step: float) -> str:
    """The baseline takes 2 s everywhere."""
    return f"{axes},{plan},{LAYERS[plan]},predicted,ok,{step},{0.9 * step},{1.1 * step},{2 / step},1e6,1e9,2e9"


# HP's step stays 2 s, EP's is k: HP overtakes between k = 1 and 4, whatever the bandwidth.
OVER_K = sweep(
    "model.moe.top_k",
    *(point(str(k), plan, step) for k in (1, 4) for plan, step in (("ep", k), ("hp", 2))),
)
MAP = sweep(
    "model.moe.top_k,cluster.fabric.nic",
    *(
        point(f"{k},{nic} Gbps", plan, step)
        for k in (1, 4)
        for nic in (100, 400)
        for plan, step in (("ep", k), ("hp", 2))
    ),
)

# Two layers that differ in k: predicted 1.1 and 2.2 ms of two phases, measured 1 and 2 ms.
JUDGED_COLUMNS = (
    "kind,tokens,hidden,heads,head_width,experts,top_k,expert_width,zipf,ranks,pass,phase,"
    "predicted_us,low_us,high_us,measured_us,error"
)


def judged_layer(kind: str, k: int) -> list[str]:
    shape = f"{kind},512,1024,8,128,64,{k},256,0,4"
    return [
        f"{shape},forward,expert,{600 * k},{500 * k},{700 * k},{600 * k},0",
        f"{shape},backward,expert,{500 * k},{400 * k},{600 * k},{400 * k},0.25",
        f"{shape},both,layer,{1100 * k},{1100 * k},{1100 * k},{1000 * k},0.1",
    ]


JUDGED = "\n".join(
    [
        JUDGED_COLUMNS,
        *(row for kind in ("ep", "hp") for k in (1, 2) for row in judged_layer(kind, k)),
    ]
)


# Two ranks; the second computes longer and finishes 2 ms later. Half of link nic_up:0 is used, then none.
SIMULATED = json.dumps(
    {
        "scenario": "by hand",
        "source": "simulated",
        "plans": [
            {
                "name": "ep",
                "feasible": True,
                "step_time_s": 0.012,
                "predicted_step_time_s": 0.010,
                "rank_finish_s": [0.010, 0.012],
                "rank_compute_s": [0.004, 0.006],
                "phases": [],
                "links": [],
                "link_use": {"bin_s": 0.006, "links": {"nic_up:0": [0.5, 0.0]}},
            },
            {"name": "dead", "feasible": False, "infeasible_because": "link nic_up:3 is dead"},
        ],
    }
)
SPANS = timeline(
    "simulated,ep,0,0,0,forward,dispatch,1,0,0.002,0.002,0.002,1e6,0,1,nic",
    "simulated,ep,0,0,0,forward,expert,1,0.002,0.003,0.003,0.003,0,1e9,1,",
    "simulated,ep,5,0,0,forward,dispatch,1,0,0.003,0.003,0.003,1e6,0,1,nic",
    "simulated,ep,5,0,0,update,grad_all_reduce,1,0.003,0.001,0.001,0.001,1e6,0,1,nic",
)


class Figures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def plot(self, text: str, *words: str, out: str = "figure.svg", times: int = 1):
        path = self.folder / "result"
        path.write_text(text)
        command = [PYTHON, PLOT, *[str(path)] * times, "-o", str(self.folder / out), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def expect_refused(self, result, *fragments: str):
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, r"\Aheadway: error: ")
        for fragment in fragments:
            self.assertIn(fragment, result.stderr)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["result"])

    def test_compare_shows_the_signed_error_of_the_slowest_rank(self):
        result = self.plot(BOTH)
        self.assertEqual(result.returncode, 0, result.stderr)
        drawn = (self.folder / "figure.svg").read_text()
        for text in ("dispatch forward", "-20.0 %", "expert forward", "+0.0 %", "measured"):
            self.assertIn(text, drawn)

    def test_the_same_result_gives_the_same_bytes(self):
        for out in ("a.svg", "b.svg"):
            self.assertEqual(self.plot(BOTH, out=out).returncode, 0)
        self.assertEqual((self.folder / "a.svg").read_bytes(), (self.folder / "b.svg").read_bytes())

    def test_one_timeline_is_drawn_by_phase(self):
        only = timeline("predicted,hp,-1,0,0,forward,expert,4,0,0.003,0.0027,0.0033,0,1e9,0,flops")
        self.assertEqual(self.plot(only, out="figure.png").returncode, 0)

    def test_a_sweep_along_one_axis_is_drawn_with_its_axis_in_words(self):
        result = self.plot(OVER_K)
        self.assertEqual(result.returncode, 0, result.stderr)
        drawn = (self.folder / "figure.svg").read_text()
        for text in ("experts per token k", "speedup over hp"):
            self.assertIn(text, drawn)

    def test_the_map_shows_best_ep_over_best_hp(self):
        result = self.plot(MAP, "--figure", "break-even")
        self.assertEqual(result.returncode, 0, result.stderr)
        drawn = (self.folder / "figure.svg").read_text()
        for text in (">0.50<", ">2.00<", "Gbps"):
            self.assertIn(text, drawn)

    def test_a_plan_is_of_the_kind_that_its_row_says(self):
        """Best EP over best HP: k over 2, whatever the plans are called."""
        renamed = MAP.replace(",ep,", ",not-hp,").replace(",hp,", ",heads,")
        drawn = self.drawn(renamed, "--figure", "break-even")
        for text in (">0.50<", ">2.00<"):
            self.assertIn(text, drawn)

    def test_a_kind_that_is_not_said_is_not_guessed(self):
        old = OVER_K.replace(",layer,", ",").replace(",expert_parallel,", ",")
        self.expect_refused(
            self.plot(old.replace(",head_parallel,", ",")), "the column 'layer' is missing"
        )
        self.expect_refused(
            self.plot(OVER_K.replace("head_parallel", "hp")), "layer: 'hp'; accepted: expert_"
        )
        rows = [row.replace("measured,ep", "measured,hp") for row in BOTH.splitlines()[8:-1]]
        self.expect_refused(
            self.plot(timeline(*rows), "--figure", "rank-load"), "'# layer: hp,...' is missing"
        )
        said = timeline(*rows).replace("# seed: 0\n", "# seed: 0\n# layer: hp,expert_parallel\n")
        wrong = said.replace("expert_parallel", "tensor")
        self.expect_refused(
            self.plot(wrong, "--figure", "rank-load"), ":6: layer: 'tensor'; accepted"
        )
        drawn = self.drawn(said, "--figure", "rank-load")
        self.assertIn("#0072b2", drawn.lower())

    def test_two_sweeps_give_a_line_each(self):
        result = self.plot(OVER_K, "--figure", "hp-gain", times=2)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_judged_layers_are_drawn_with_their_intervals(self):
        result = self.plot(JUDGED, "--figure", "layers")
        self.assertEqual(result.returncode, 0, result.stderr)
        drawn = (self.folder / "figure.svg").read_text()
        for text in ("HP (2)", "EP, a copy an expert (2)", "predicted / measured"):
            self.assertIn(text, drawn)

    def test_judged_layers_are_drawn_over_k(self):
        result = self.plot(JUDGED, "--figure", "layers-k")
        self.assertEqual(result.returncode, 0, result.stderr)
        drawn = (self.folder / "figure.svg").read_text()
        self.assertIn("4 ranks, 512 tokens each, d = 1024, E = 64, f = 256", drawn)

    def drawn(self, text: str, *words: str) -> str:
        result = self.plot(text, *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        return (self.folder / "figure.svg").read_text()

    def test_a_simulation_is_drawn_beside_its_prediction(self):
        drawn = self.drawn(SIMULATED, "--figure", "predict-simulate")
        for text in ("+20.0 %", "predicted", "simulated", ">ep<"):
            self.assertIn(text, drawn)
        self.assertNotIn(">dead<", drawn)

    def test_ranks_of_a_simulation_are_drawn(self):
        drawn = self.drawn(SIMULATED, "--figure", "finish")
        self.assertIn("ranks compute 4 to 6 ms; the last one finishes 2 ms after the first", drawn)

    def test_links_of_a_simulation_are_drawn(self):
        self.assertIn(">nic_up:0<", self.drawn(SIMULATED, "--figure", "links"))
        without = SIMULATED.replace("link_use", "other")
        self.assertEqual(self.plot(without, "--figure", "links", out="b.svg").returncode, 2)

    def test_ranks_are_drawn_over_time(self):
        drawn = self.drawn(SPANS, "--figure", "gantt")
        for text in (">rank 0<", ">rank 5<", "dispatch", "expert", "grad_all_reduce"):
            self.assertIn(text, drawn)
        chosen = self.drawn(SPANS, "--figure", "gantt", "--ranks", "5")
        self.assertNotIn(">rank 0<", chosen)

    def test_the_order_of_a_pipeline_is_drawn(self):
        """Two ranks in 8 ms: 2 ms of bubble on the first, 1 + 1 ms on the second."""
        drawn = self.drawn(PIPELINE)
        for text in (">pipeline rank 0<", ">pipeline rank 1<", "forward", "weight gradients"):
            self.assertIn(text, drawn)
        self.assertIn("25 % of the ranks", drawn)
        self.assertNotIn("later chunks lighter", drawn)
        self.assertNotIn("pipeline_stage", self.drawn(PIPELINE, "--figure", "timeline-phases"))

    def expect_drawn(self, script: str, rows: str, *texts: str):
        out = self.folder / "figure.svg"
        command = [PYTHON, str(Path(PLOT).with_name(script)), str(ROOT / rows), str(out)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        for text in texts:
            self.assertIn(text, out.read_text())

    def test_the_cost_of_the_simulator_is_drawn(self):
        texts = ("zipf, exact", "256 ranks", "distinct completion instants")
        self.expect_drawn("simulator_cost.py", "docs/results/bench_simulator.csv", *texts)

    def test_the_layers_of_the_lab_are_drawn(self):
        texts = ("EP by node", "4:1", "oversubscription")
        self.expect_drawn("lab_layers.py", "docs/results/validation_lab/layers.csv", *texts)

    def test_a_sweep_that_is_not_finished_is_refused(self):
        self.expect_refused(self.plot(OVER_K.rpartition("# end")[0]), "end mark")
        self.expect_refused(self.plot(MAP, "--figure", "step"), "figure 'step'")

    def test_a_cut_file_is_refused(self):
        self.expect_refused(self.plot(BOTH.rpartition("# end")[0]), "end mark")
        lines = BOTH.splitlines(keepends=True)
        self.expect_refused(self.plot("".join(lines[:7] + lines[8:])), "number of rows")

    def test_other_files_are_refused(self):
        self.expect_refused(self.plot("plan,time\n"), "neither a CSV of headway nor JSON")
        self.expect_refused(self.plot("[1, 2]"), "a JSON object was expected")

    def test_compare_has_a_panel_for_every_plan(self):
        rows = BOTH.splitlines()[6:-1]
        two = timeline(*rows, *(row.replace(",ep,", ",hp,") for row in rows))
        drawn = self.drawn(two)
        for text in (">plan ep<", ">plan hp<"):
            self.assertIn(text, drawn)

    def test_a_place_that_is_not_of_its_kind_is_named(self):
        def changed(**keys) -> str:
            data = json.loads(SIMULATED)
            data["plans"][0].update(keys)
            return json.dumps(data)

        self.expect_refused(self.plot(changed(step_time_s="x")), "plans[0].step_time_s: 'x'")
        self.expect_refused(self.plot(changed(rank_finish_s=[1.0])), "1 times in rank_finish_s")
        self.expect_refused(self.plot(changed(rank_finish_s={})), "an object; accepted: a list")
        self.expect_refused(self.plot(changed(step_time_s=float("nan"))), "NaN is no number")
        prediction = {"scenario": "s", "plans": "x"}
        self.expect_refused(self.plot(json.dumps(prediction)), "profile: is missing")

    def test_a_row_that_is_not_as_its_header_is_named(self):
        row = "measured,ep,0,0,0,forward,expert,1,0,0.003,0.0029,0.0031,0,1e9,9,"
        self.expect_refused(self.plot(timeline(row + ",7")), ":7: 17 fields; accepted: 16")
        self.expect_refused(self.plot(timeline(row[:-3])), ":7: 14 fields; accepted: 16")
        self.expect_refused(
            self.plot(timeline(row.replace("0.003,", "soon,"))), "duration_s: 'soon'"
        )
        self.expect_refused(self.plot(timeline(row.replace("0.003,", "inf,"))), "duration_s: 'inf'")
        self.expect_refused(self.plot(timeline(row.replace("expert", "lunch"))), "phase: 'lunch'")
        self.expect_refused(self.plot(timeline(row.replace(",0,0,0,", ",0.5,0,0,"))), "rank: '0.5'")
        self.expect_refused(
            self.plot(OVER_K.replace("2e9", "2eggs")), "memory_capacity_bytes: '2eggs'"
        )
        self.expect_refused(self.plot(JUDGED.replace("600,", "many,", 1)), "'many'")

    def run_plot(self, *words: str, **keywords):
        command = [PYTHON, PLOT, *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, **keywords
        )

    def test_what_is_no_file_is_refused_at_once(self):
        pipe = self.folder / "result"
        os.mkfifo(pipe)
        for path in (str(pipe), "/dev/zero", str(self.folder)):
            result = self.run_plot(path, "-o", str(self.folder / "figure.svg"))
            self.expect_refused(result, path, "not a regular file")
        result = self.run_plot(str(self.folder / "absent"), "-o", str(self.folder / "figure.svg"))
        self.expect_refused(result, "cannot read: No such file or directory")
        self.assertNotIn("Errno", result.stderr)

    def test_options_that_are_wrong_are_one_line(self):
        self.expect_refused(self.plot(BOTH, "--fig", "gantt"), "unrecognized arguments: --fig")
        self.expect_refused(self.plot(SPANS, "--ranks", "0-"), "--ranks")
        self.expect_refused(self.plot(SPANS, "--ranks", "99999999999"), "--ranks: '99999999999'")

    def test_an_input_is_not_written_over(self):
        path = self.folder / "figure.svg"
        path.write_text(BOTH)
        result = self.run_plot(str(path), "-o", str(path))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("is an input too", result.stderr)
        self.assertEqual(path.read_text(), BOTH)

    def test_a_reader_that_leaves_is_no_error(self):
        reading, writing = os.pipe()
        os.close(reading)
        command = [PYTHON, PLOT, "--figure", "list"]
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
        os.close(writing)
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_a_full_device_is_one_line(self):
        """Also where the text is written at the end alone, as Python does unless told otherwise."""
        command = [PYTHON, PLOT, "--figure", "list"]
        for unbuffered in ("", "1"):
            environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
            with open("/dev/full", "w", encoding="utf-8") as full:
                result = subprocess.run(
                    command, stdout=full, stderr=subprocess.PIPE, check=False, env=environment
                )
            self.assertEqual(result.returncode, 2)
            self.assertEqual(result.stderr, b"headway: error: No space left on device\n")

    def test_an_interrupt_leaves_nothing_behind(self):
        path = self.folder / "result"
        path.write_text(BOTH)
        command = [PYTHON, PLOT, str(path), "-o", str(self.folder / "figure.svg")]
        for delay in (0.0, 0.2):
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            wait_for_handler(process)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            words = process.communicate(timeout=60)[1]
            self.assertIn(process.returncode, (0, -signal.SIGINT))
            self.assertNotIn("Traceback", words)
            left = {file.name for file in self.folder.iterdir()}
            self.assertLessEqual(left, {"result", "figure.svg"})

    def test_an_interrupt_that_a_library_turns_into_its_own_error_is_one(self):
        """As numpy does while it is imported."""
        program = (
            "import os, signal, command\n"
            "def main():\n"
            "    try:\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "    except BaseException as error:\n"
            "        raise ImportError('a part is missing') from error\n"
            "command.run(main)\n"
        )
        result = subprocess.run(
            [PYTHON, "-c", program], cwd=Path(PLOT).parent, capture_output=True, check=False
        )
        self.assertEqual((result.returncode, result.stderr), (-signal.SIGINT, b""))

    def test_a_figure_that_does_not_fit_the_result_is_refused(self):
        self.expect_refused(self.plot(BOTH, "--figure", "memory"), "figure 'memory'")
        self.expect_refused(self.plot(BOTH, "--figure", "nonsense"), "accepted: phases")
        self.expect_refused(self.plot(BOTH, out="figure.gif"), "accepted: .png, .svg")


def wait_for_handler(process) -> None:
    """Until the script has begun: it catches SIGTERM then, which no Python does by itself."""
    for _ in range(3000):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1:
            return
        time.sleep(0.01)
    raise AssertionError("the script never began")


def has_matplotlib(python: str) -> bool:
    command = [python, "-c", "import matplotlib"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    PLOT = sys.argv.pop(1)
    PYTHON = next(filter(has_matplotlib, (sys.executable, "/usr/bin/python3")), "")
    if not PYTHON:
        sys.exit(77)
    unittest.main()
