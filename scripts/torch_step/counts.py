"""Counts of a Kineto trace: launches, host waits and GPU time by pass and phase.

A launch is a call of the CUDA runtime or driver that put a kernel, a copy or a fill on the device. A launch of
the backward pass belongs to the phase whose operator made the autograd node (sequence numbers).
"""

import json
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

PASSES = ("forward", "backward", "update")
WAIT_CALLS = {"cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize"}
EVALUATE = "autograd::engine::evaluate_function: "
GRAD_ACCUMULATE = "grad_accumulate"  # AccumulateGrad: no operator of the forward pass made it
OTHER = "other"


@dataclass
class Count:
    launches: int = 0
    waits: int = 0
    calls: int = 0  # of the CUDA API, launches and waits included
    gpu_us: float = 0.0
    api_us: float = 0.0


class Enclosing:
    """The innermost of nested intervals of one thread that holds a point of time."""

    def __init__(self, events: list[dict]):
        self.starts: list[float] = []
        self.open: list[tuple] = []  # (event, enclosing entry or None), innermost at that start
        stack: list[tuple] = []
        for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
            while stack and stack[-1][0]["ts"] + stack[-1][0]["dur"] <= event["ts"]:
                stack.pop()
            entry = (event, stack[-1] if stack else None)
            stack.append(entry)
            self.starts.append(event["ts"])
            self.open.append(entry)

    def at(self, ts: float) -> dict | None:
        i = bisect_right(self.starts, ts) - 1
        entry = self.open[i] if i >= 0 else None
        while entry is not None and entry[0]["ts"] + entry[0]["dur"] < ts:
            entry = entry[1]
        return entry[0] if entry is not None else None


def by_thread(events: list[dict]) -> dict[int, Enclosing]:
    threads = defaultdict(list)
    for event in events:
        threads[event["tid"]].append(event)
    return {tid: Enclosing(own) for tid, own in threads.items()}


def union_us(events: list[dict]) -> float:
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e["ts"]):
        last = event["ts"] + event["dur"]
        total += max(0.0, last - max(end, event["ts"]))
        end = max(end, last)
    return total


@dataclass
class Trace:
    counts: dict[tuple[str, str], Count]  # of all steps, by (pass, phase)
    gpu_busy_us: float  # union over kernels, copies and fills, NCCL's kernels left out
    nccl_us: float
    api_names: dict[str, int]


def read(path: str, phases: frozenset[str]) -> Trace:
    with open(path, encoding="utf-8") as file:
        events = [e for e in json.load(file)["traceEvents"] if e.get("ph") == "X"]
    of = defaultdict(list)
    for event in events:
        of[event.get("cat")].append(event)
    device = of["kernel"] + of["gpu_memcpy"] + of["gpu_memset"]
    work = {e["args"]["correlation"]: e for e in device if "correlation" in e["args"]}

    notes = of["user_annotation"]
    passes = Enclosing([e for e in notes if e["name"] in PASSES])
    spans = by_thread([e for e in notes if e["name"] in phases])
    operators = [e for e in of["cpu_op"] if "Sequence number" in e.get("args", {})]
    backward = by_thread([e for e in operators if e["name"].startswith(EVALUATE)])

    # The counter grows when a node is made: of the operators that saw a number, the last one made its node.
    maker: dict[int, tuple[float, str]] = {}
    for event in operators:
        if event["tid"] not in spans or event["args"].get("Fwd thread id"):
            continue
        note = spans[event["tid"]].at(event["ts"])
        number = event["args"]["Sequence number"]
        if note is not None and event["ts"] >= maker.get(number, (float("-inf"), ""))[0]:
            maker[number] = (event["ts"], note["name"])

    counts: dict[tuple[str, str], Count] = defaultdict(Count)
    names: dict[str, int] = defaultdict(int)
    for event in of["cuda_runtime"] + of["cuda_driver"]:
        note = passes.at(event["ts"])
        if note is None or not (event["tid"] in spans or event["tid"] in backward):
            continue  # between steps, or a watchdog's
        node = backward[event["tid"]].at(event["ts"]) if event["tid"] in backward else None
        if node is not None:
            phase = maker.get(node["args"]["Sequence number"], (0.0, OTHER))[1]
            if "AccumulateGrad" in node["name"]:
                phase = GRAD_ACCUMULATE
        else:
            inner = spans[event["tid"]].at(event["ts"]) if event["tid"] in spans else None
            phase = inner["name"] if inner is not None else OTHER
        count = counts[note["name"], phase]
        count.calls += 1
        count.api_us += event["dur"]
        count.waits += event["name"] in WAIT_CALLS
        names[event["name"]] += 1
        launched = work.get(event["args"].get("correlation"))
        if launched is not None:
            count.launches += 1
            count.gpu_us += launched["dur"]
    nccl = [e for e in device if "nccl" in e["name"].lower()]
    rest = [e for e in device if "nccl" not in e["name"].lower()]
    return Trace(dict(counts), union_us(rest), union_us(nccl), dict(names))
