#!/usr/bin/env python3
"""All-to-alls of PyTorch's NCCL, back to back: what an exchange in flow is held against. Two ranks or more of one machine.

usage: scripts/bare_all_to_all.py RANKS OUT.csv   (needs PyTorch and as many GPUs)
"""

import os
import statistics
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SIZES = [2**20 * factor for factor in (1, 2, 4, 8, 16, 32, 64, 128, 256)]  # bytes of a rank in all
CALLS, ROUNDS = 20, 15


def run(rank: int, ranks: int, out: str) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=ranks)
    rows = []
    for size in SIZES:
        send = torch.randn(size // 2, device="cuda").to(torch.bfloat16)
        receive = torch.empty_like(send)
        times = []
        for round_number in range(ROUNDS + 3):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(4_000_000)  # about 2 ms: the host is ahead
            dist.all_to_all_single(receive, send)
            begin.record()
            for _ in range(CALLS):
                dist.all_to_all_single(receive, send)
            end.record()
            torch.cuda.synchronize()
            if round_number >= 3:
                times.append(1e3 * begin.elapsed_time(end) / CALLS)
        slowest = torch.tensor([statistics.median(times)], device="cuda")
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        rows.append((size, slowest.item(), min(times), max(times)))
    if rank == 0:
        with open(out, "w", encoding="utf-8") as file:
            file.write("bytes,median_us,min_us,max_us\n")
            file.writelines(f"{s},{m:.2f},{low:.2f},{high:.2f}\n" for s, m, low, high in rows)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29555")
    mp.spawn(run, args=(int(sys.argv[1]), sys.argv[2]), nprocs=int(sys.argv[1]))
