#!/usr/bin/env python3
"""Trains the cases of cases.py: recorded by headway's recorder on one GPU, or timed as they are.

record-one   the cases of one GPU: CASE.json.gz, CASE_comm.json
record-two   those of two ranks, as rank 0 of 2 with fake collectives on one GPU
time-one     step times of the cases of one GPU in a fresh process, with nothing recorded: one.csv
time-two     step times of the cases of two ranks with NCCL on two GPUs: two.csv
"""

import argparse
import csv
import gc
import statistics
import sys
from pathlib import Path

import cases

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "analysis" / "recorder"))
WARM, FREE = 13, 20


def trainer_of(case, rank, ranks):
    import layouts
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    gc.disable()  # as trainers do: a collection in the middle of a step delays every rank
    sdpa_kernel(SDPBackend.FLASH_ATTENTION).__enter__()
    return layouts.Trainer(case, rank, ranks, torch.device("cuda", rank))


def timed(trainer) -> dict[str, float]:
    import torch

    for _ in range(WARM):
        trainer.step()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(FREE + 1)]
    for mark in marks[:-1]:
        mark.record()
        trainer.step()
    marks[-1].record()
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))
    return {
        "step_ms": round(statistics.median(times), 4),
        "p10_ms": round(times[FREE // 10], 4),
        "p90_ms": round(times[-1 - FREE // 10], 4),
    }


def append(path: Path, row: dict) -> None:
    fresh = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def forget(trainer) -> None:
    import torch

    trainer.__dict__.clear()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def record(own: list, out: Path) -> None:
    """Times of all first: once a profiler has run, launches of the process are slower."""
    import headway_recorder as headway
    import torch
    import torch.distributed as dist

    def routed(case):
        experts = case.shape.experts if case.layout == "ep" else 0
        if case.shape.gpus > 1:
            headway.headway_routing(experts, cases.popularity(case) if experts else None)

    torch.cuda.set_device(0)
    if own[0].shape.gpus > 1:
        headway.headway_fake(2)
        dist.init_process_group("nccl")
    recorders = []
    for case in own:
        routed(case)
        trainer = trainer_of(case, 0, case.shape.gpus)
        recorder = headway.Recorder(str(out / case.name))
        recorders.append((case, recorder))
        while not recorder.timed and recorder.step():
            trainer.step()
        forget(trainer)
    for case, recorder in recorders:
        routed(case)
        trainer = trainer_of(case, 0, case.shape.gpus)
        while recorder.step():
            trainer.step()
        forget(trainer)
        size = (out / f"{case.name}.json.gz").stat().st_size / 1e6
        print(f"{case.name}: recorded, {size:.2f} MB", flush=True)


def time_cases(own: list, rank: int, ranks: int, path: Path) -> None:
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(rank)
    if ranks > 1:
        store = f"file://{path}.store"
        device = torch.device("cuda", rank)
        dist.init_process_group(
            "nccl", init_method=store, rank=rank, world_size=ranks, device_id=device
        )
    for case in own:
        trainer = trainer_of(case, rank, ranks)
        row = timed(trainer)
        if ranks > 1:  # of the slower rank
            both = torch.tensor(list(row.values()), device="cuda")
            dist.all_reduce(both, op=dist.ReduceOp.MAX)
            row = {k: round(v, 4) for k, v in zip(row, both.tolist())}
        if rank == 0:
            append(path, {"case": case.name} | row)
            print(case.name, row, flush=True)
        forget(trainer)
    if ranks > 1:
        dist.destroy_process_group()


def work(rank: int, what: str, out: Path, only: str) -> None:
    own = cases.IDENTITY if what.endswith("one") else cases.PAIRS
    own = [case for case in own if only in ("", case.name)]
    if what.startswith("record"):
        record([case for case in own if not case.recorded], out)
    else:
        ranks = own[0].shape.gpus
        own = [case for case in own if case.layout != "fsdp"]  # their traces are refused
        time_cases(own, rank, ranks, out / ("one.csv" if ranks == 1 else "two.csv"))


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("record-one", "record-two", "time-one", "time-two"))
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", default="", help="one case, by its name")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    import torch.multiprocessing as mp

    processes = 2 if options.what == "time-two" else 1
    mp.spawn(work, (options.what, options.out, options.only), nprocs=processes)


if __name__ == "__main__":
    main()
