#!/usr/bin/env python3
"""Counts of a hand-made Kineto trace: what scripts/torch_step says of launches, host waits and phases.

usage: torch_step_counts_test.py
"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts" / "torch_step"))
import counts  # noqa: E402

HOST, AUTOGRAD, WATCHDOG, STREAM = 1, 2, 3, 7
PHASES = frozenset({"route", "permute"})


def event(cat: str, name: str, ts: float, dur: float, tid: int = HOST, **args: object) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def node(name: str, ts: float, number: int) -> dict:
    arguments = {"Sequence number": number, "Fwd thread id": 1}
    return event("cpu_op", counts.EVALUATE + name, ts, 20, AUTOGRAD, **arguments)


def launch(ts: float, correlation: int, tid: int = HOST) -> dict:
    return event("cuda_runtime", "cudaLaunchKernel", ts, 2, tid, correlation=correlation)


def kernel(ts: float, dur: float, correlation: int, name: str = "gemm") -> dict:
    return event("kernel", name, ts, dur, STREAM, correlation=correlation)


# Forward: route launches 1 and waits once, permute launches 2, and 3 is of no phase. Operators of route and of
# permute saw sequence number 5 (the first made no node), so node 5 is permute's; node 4 is route's.
TRACE = [
    event("user_annotation", "forward", 0, 100),
    event("user_annotation", "route", 10, 30),
    event("user_annotation", "permute", 50, 30),
    event("cpu_op", "aten::linear", 11, 5, **{"Sequence number": 4}),
    event("cpu_op", "aten::histc", 18, 5, **{"Sequence number": 5}),
    event("cpu_op", "aten::index_select", 51, 8, **{"Sequence number": 5}),
    launch(12, 1),
    event("cuda_runtime", "cudaStreamSynchronize", 30, 8, correlation=90),
    launch(52, 2),
    launch(90, 3),
    event("user_annotation", "backward", 100, 100),
    node("IndexSelectBackward0", 110, 5),
    launch(112, 4, AUTOGRAD),
    launch(115, 5, AUTOGRAD),
    node("MmBackward0", 140, 4),
    launch(142, 6, AUTOGRAD),
    node("torch::autograd::AccumulateGrad", 170, 2**64 - 1),
    launch(172, 7, AUTOGRAD),
    event("cuda_runtime", "cudaEventQuery", 150, 1, WATCHDOG, correlation=91),
    launch(250, 8),  # after the step
    kernel(20, 10, 1),
    kernel(25, 10, 2),  # overlaps the first: busy for 15
    kernel(100, 7, 3, "ncclDevKernel_SendRecv"),
    *(kernel(200 + 10 * i, 4, i) for i in (4, 5, 6, 7)),
]


class Counts(unittest.TestCase):
    def setUp(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            path.write_text(json.dumps({"traceEvents": TRACE}), encoding="utf-8")
            self.trace = counts.read(str(path), PHASES)

    def test_launches_and_waits_by_phase(self):
        found = {key: (c.launches, c.waits) for key, c in self.trace.counts.items()}
        expected = {
            ("forward", "route"): (1, 1),
            ("forward", "permute"): (1, 0),
            ("forward", counts.OTHER): (1, 0),
            ("backward", "permute"): (2, 0),
            ("backward", "route"): (1, 0),
            ("backward", counts.GRAD_ACCUMULATE): (1, 0),
        }
        self.assertEqual(found, expected)

    def test_times_of_the_device(self):
        self.assertEqual(self.trace.gpu_busy_us, 15 + 4 * 4)
        self.assertEqual(self.trace.nccl_us, 7)
        self.assertEqual(self.trace.counts["backward", "permute"].gpu_us, 8)


if __name__ == "__main__":
    unittest.main()
