#!/usr/bin/env python3
"""Measures the host in an eager PyTorch training step of a Mixture-of-Experts transformer.

check   expert parallelism and grouped experts against a plain loop over all experts, forward and gradients
trace   Kineto traces of two steps on two GPUs, one file a rank, and the shape beside them
grid    step times, host times, launches and host waits of the shapes of shapes.py: host.csv, host_phases.csv
ops     host times of single operators: host_ops.csv
graph   layers of one GPU replayed as one CUDA graph beside their eager run: host_graph.csv

Steps run free: the only host waits are the layers' own. Host times are taken apart from that, with the device
idle at the start of each pass, so that no full launch queue holds the host; waits inside are taken off.
"""

import argparse
import csv
import dataclasses
import datetime
import functools
import gc
import os
import pathlib
import platform
import subprocess
import tempfile
import time

import counts
import graph
import model
import ops
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from check import check
from model import Spans, Waits, build, span
from shapes import SHAPES, TRACED, Shape
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, schedule

WARM_STEPS, STEPS, HOST_STEPS, PROFILED_STEPS = 5, 15, 8, 2
DENSE = {"norm", "attention_qkv", "attention_core", "attention_out"}
LOCAL = {"route", "permute", "regroup", "expert", "ungroup", "unpermute"}
EXCHANGES = {"count_exchange", "dispatch", "combine"}
LAYER_PHASES = frozenset(DENSE | LOCAL | EXCHANGES)
PHASES = LAYER_PHASES | {"embed", "lm_head", "loss", "grad_all_reduce", "optimizer"}


class Trainer:
    """A model with its optimizer and tokens; `step` is what a training loop runs."""

    def __init__(self, shape: Shape, rank: int, device: torch.device):
        self.shape, self.ranks = shape, shape.gpus
        self.model = build(shape, rank, shape.gpus, device, torch.bfloat16)
        experts = self.model.expert_parameters()
        self.dense = [p for p in self.model.parameters() if p not in experts]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        generator = torch.Generator(device).manual_seed(7 + rank)
        size = (4, shape.micro_batches, shape.tokens + 1)
        self.tokens = torch.randint(shape.vocab, size, generator=generator, device=device)
        self.steps = 0
        self.host = {name: 0.0 for name in counts.PASSES}

    @torch.no_grad()
    def reduce_dense(self) -> None:
        grads = [p.grad for p in self.dense]
        flat = torch.cat([g.view(-1) for g in grads])
        dist.all_reduce(flat, op=dist.ReduceOp.AVG)
        parts = flat.split([g.numel() for g in grads])
        torch._foreach_copy_(grads, [part.view_as(g) for part, g in zip(parts, grads)])

    def timed(self, name: str, idle_first: bool, work) -> None:
        if idle_first:
            torch.cuda.synchronize()
        waited, start = Waits.seconds, time.perf_counter()
        with span(name):
            work()
        self.host[name] += time.perf_counter() - start - (Waits.seconds - waited)

    def step(self, idle_first: bool = False) -> None:
        tokens = self.tokens[self.steps % len(self.tokens)]
        self.steps += 1
        self.host = {name: 0.0 for name in counts.PASSES}
        loss = None

        def forward(batch: torch.Tensor) -> None:
            nonlocal loss
            loss = self.model(batch[:-1], batch[1:]) / self.shape.micro_batches

        def update() -> None:
            if self.ranks > 1:
                with span("grad_all_reduce"):
                    self.reduce_dense()
            with span("optimizer"):
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

        for batch in tokens:
            self.timed("forward", idle_first, functools.partial(forward, batch))
            self.timed("backward", idle_first, lambda: loss.backward())
        self.timed("update", idle_first, update)


def quantile(values: list[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))


def free_running(trainer: Trainer) -> dict[str, float]:
    """Step times between events in the stream: nothing waits but the layers."""
    for _ in range(WARM_STEPS):
        trainer.step()
    torch.cuda.synchronize()
    if trainer.ranks > 1:
        dist.barrier()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(STEPS + 1)]
    Waits.count, Waits.seconds = 0, 0.0
    marks[0].record()
    start = time.perf_counter()
    for mark in marks[1:]:
        trainer.step()
        mark.record()
    enqueued = time.perf_counter() - start
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]
    return {
        "step_ms": quantile(times, 0.5),
        "step_p10_ms": quantile(times, 0.1),
        "step_p90_ms": quantile(times, 0.9),
        "enqueue_ms": 1e3 * enqueued / STEPS,
        "wait_ms": 1e3 * Waits.seconds / STEPS,
    }


def host_times(trainer: Trainer) -> dict[str, float]:
    """Host time of each pass with the device idle at its start, waits taken off."""
    taken: dict[str, list[float]] = {name: [] for name in counts.PASSES}
    for _ in range(HOST_STEPS):
        trainer.step(idle_first=True)
        for name, seconds in trainer.host.items():
            taken[name].append(1e3 * seconds)
    return {f"host_{name}_ms": quantile(values, 0.5) for name, values in taken.items()}


def profiled(trainer: Trainer, path: str, record_shapes: bool = False) -> None:
    """Writes a Kineto trace of PROFILED_STEPS steps; every rank must call it."""
    for _ in range(WARM_STEPS):
        trainer.step()
    plan = schedule(wait=0, warmup=1, active=PROFILED_STEPS, repeat=1)
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    Spans.enabled = True
    with profile(
        activities=kinds,
        schedule=plan,
        record_shapes=record_shapes,
        on_trace_ready=lambda p: p.export_chrome_trace(path),
    ) as profiler:
        for _ in range(1 + PROFILED_STEPS):
            trainer.step()
            torch.cuda.synchronize()
            profiler.step()
    Spans.enabled = False


def counted(trainer: Trainer) -> tuple[dict, list[dict]]:
    s = trainer.shape
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        profiled(trainer, path)
        trace = counts.read(path, PHASES)
    rows, row = [], {}
    for (which, phase), c in sorted(trace.counts.items()):
        rows.append(
            {"shape": s.name, "pass": which, "phase": phase}
            | {
                f"{k}_a_step": round(v / PROFILED_STEPS, 3)
                for k, v in dataclasses.asdict(c).items()
            }
        )
    for which in counts.PASSES:
        own = {phase: c for (name, phase), c in trace.counts.items() if name == which}
        layer = [c for phase, c in own.items() if phase in LAYER_PHASES]
        layers = s.layers * s.micro_batches * PROFILED_STEPS
        row[f"launches_{which}"] = sum(c.launches for c in own.values()) / PROFILED_STEPS
        row[f"waits_{which}"] = sum(c.waits for c in own.values()) / PROFILED_STEPS
        if which != "update":
            row[f"launches_layer_{which}"] = sum(c.launches for c in layer) / layers
            row[f"waits_layer_{which}"] = sum(c.waits for c in layer) / layers
    row["gpu_busy_ms"] = trace.gpu_busy_us / 1e3 / PROFILED_STEPS
    row["nccl_ms"] = trace.nccl_us / 1e3 / PROFILED_STEPS
    return row, rows


def measured(shape: Shape, rank: int, device: torch.device) -> dict:
    torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(shape, rank, device)
    row = {"add_us": ops.add_us(device)} | free_running(trainer)
    row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    row |= host_times(trainer)
    load = torch.stack([layer.moe.last_counts for layer in trainer.model.layers]).double()
    row["load_max_over_mean"] = float((load.max(1).values / load.mean(1)).mean())
    return row


def measure_all(
    shapes: list[Shape], rank: int, device: torch.device, options: argparse.Namespace
) -> None:
    """Times of all shapes first: a profiler that has run slows each later launch of the process by a quarter."""
    out, about = pathlib.Path(options.out), about_machine(options)
    gc.disable()  # as trainers do: a collection in the middle of a step delays every rank
    rows = {}
    for shape in shapes:
        rows[shape] = measured(shape, rank, device)
        gc.collect()
        torch.cuda.empty_cache()
        if rank == 0:
            print(shape.name, {k: round(v, 3) for k, v in rows[shape].items()}, flush=True)
    for shape in shapes:
        found, phases = counted(Trainer(shape, rank, device))
        gc.collect()
        torch.cuda.empty_cache()
        row = rows[shape] | found
        for which in counts.PASSES:
            host_us = 1e3 * row[f"host_{which}_ms"]
            row[f"host_us_a_launch_{which}"] = host_us / row[f"launches_{which}"]
        if rank == 0:
            rounded = {k: round(v, 4) for k, v in row.items()}
            write(out / "host.csv", [dataclasses.asdict(shape) | rounded | about])
            write(out / "host_phases.csv", phases)
            print(shape.name, {k: round(v, 3) for k, v in found.items()}, flush=True)


def about_machine(options: argparse.Namespace) -> dict[str, str | int]:
    cpu = platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    return {
        "cpu": f"{names[0] if names else cpu}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name(),
        "driver": driver,
        "cuda": str(torch.version.cuda),
        "torch": torch.__version__,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "pinned_cores": options.cores,
        "command": f"moe_step.py {options.what}",
    }


def write(path: pathlib.Path, rows: list[dict]) -> None:
    fresh = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def report(path: pathlib.Path, rows: list[dict], rank: int, about: dict) -> None:
    if rank == 0:
        write(path, [row | about for row in rows])
        for row in rows:
            print(*row.values(), flush=True)


def work(rank: int, ranks: int, options: argparse.Namespace, shapes: list[Shape]) -> None:
    device = torch.device(options.device, rank) if options.device == "cuda" else torch.device("cpu")
    if options.cores:
        os.sched_setaffinity(0, range(rank * options.cores, (rank + 1) * options.cores))
    if options.device == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if options.device == "cuda" else "gloo"
    store = f"file://{options.store}-{options.what}-{ranks}"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=ranks)
    out = pathlib.Path(options.out)
    try:
        if options.what == "check":
            check(rank, ranks, device)
            return
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            if options.what == "trace":
                trainer = Trainer(TRACED, rank, device)
                free_running(trainer)
                profiled(trainer, str(out / f"trace_rank{rank}.json.gz"), record_shapes=True)
            elif options.what == "grid":
                measure_all(shapes, rank, device, options)
            elif options.what == "ops":
                report(
                    out / "host_ops.csv", ops.measured(ranks, device), rank, about_machine(options)
                )
            else:
                for shape in shapes:
                    report(
                        out / "host_graph.csv",
                        graph.measured(shape, device),
                        rank,
                        about_machine(options),
                    )
    finally:
        dist.destroy_process_group()


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("check", "trace", "grid", "ops", "graph"))
    parser.add_argument("--out", default=".", help="folder of the results")
    parser.add_argument("--shapes", default="", help="names, comma-separated; all if left out")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: check only")
    parser.add_argument("--cores", type=int, default=0, help="pin a rank to so many cores; 0: none")
    options = parser.parse_args()
    if options.device == "cpu" and options.what != "check":
        parser.error(f"{options.what} measures CUDA launches: --device cpu runs check only")
    if options.shapes and options.what not in ("grid", "graph"):
        parser.error(f"{options.what} has no shapes to choose from: --shapes is of grid and graph")
    wanted = [name for name in options.shapes.split(",") if name]
    unknown = set(wanted) - {s.name for s in SHAPES}
    if unknown:
        parser.error(f"unknown shapes {sorted(unknown)}; known: {[s.name for s in SHAPES]}")
    shapes = [s for s in SHAPES if not wanted or s.name in wanted]
    if options.what == "graph":  # a layer that waits for the host cannot be captured
        shapes = [s for s in shapes if s.gpus == 1 and s.implementation == "grouped"]
        if not shapes:
            parser.error("graph: none of these shapes is of one GPU with grouped experts")
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    if options.what == "trace":
        text = f"{TRACED}\nsteps: {PROFILED_STEPS}\n\n{model.__doc__}"
        (out / "shape.txt").write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        options.store = os.path.join(folder, "store")
        if options.what in ("grid", "graph"):
            for gpus in sorted({s.gpus for s in shapes}):
                own = [s for s in shapes if s.gpus == gpus]
                mp.spawn(work, (gpus, options, own), nprocs=gpus)
        else:
            mp.spawn(work, (2, options, []), nprocs=2)


if __name__ == "__main__":
    main()
