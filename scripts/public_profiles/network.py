"""Communication curves: nccl-tests tables inside a node, derived lines between nodes."""

import numpy as np
import pandas as pd
from curve import MIB, nbytes, num
from devices import AIC

# Fitted sizes in MiB of the whole buffer: powers of four, and powers of two between them where the chord misses the
# measurement by more than 5 %, because NCCL changes protocol there. All other sizes are held out for `headway validate`.
POWERS_OF_FOUR = [2.0**-4, 2.0**-2, 1, 4, 16, 64, 256]
LINK = {
    "a100": "300 GB/s",
    "h100": "450 GB/s",
    "h200": "450 GB/s",
    "b200": "900 GB/s",
    "gb200": "900 GB/s",
    "b300": "900 GB/s",
    "gb300": "900 GB/s",
    "l40s": "32 GB/s",
}


def fitted_sizes(us_by_mib):
    added = []
    for low, high in zip(POWERS_OF_FOUR[1:], POWERS_OF_FOUR[2:]):
        chord = us_by_mib[low] + (us_by_mib[high] - us_by_mib[low]) / 3
        if abs(chord / us_by_mib[2 * low] - 1) > 0.05:
            added.append(2 * low)
    return sorted(POWERS_OF_FOUR + added)


def nccl_rows(dev, root, op, ranks):
    d = pd.read_parquet(f"{root}/data/{dev['dir']}/comm/nccl/{dev['nccl']}/nccl_perf.parquet")
    d = d[(d.op_name == op) & (d.num_gpus == ranks)].assign(
        bytes=lambda x: np.where(x.nccl_dtype == "half", 2.0, 1.0) * x.message_size,
        us=lambda x: x.latency * 1e3,
    )
    return d[["nccl_dtype", "bytes", "us"]].sort_values("bytes")


def nccl_curve(dev, name, root, op, collective, ranks, path):
    d = nccl_rows(dev, root, op, ranks)
    half = d[d.nccl_dtype == "half"]
    factor = (
        {"all_to_all": 1.0, "all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}[collective]
        * (ranks - 1)
        / ranks
    )
    us_by_mib = dict(zip(half.bytes / MIB, half.us))
    sizes = fitted_sizes(us_by_mib) if collective == "all_to_all" else [*POWERS_OF_FOUR, 512]
    picked = half[half.bytes.isin([s * MIB for s in sizes])]
    times = np.maximum.accumulate(picked.us.to_numpy())
    xs = picked.bytes.to_numpy()
    rest = d[
        (d.bytes >= xs[0]) & (d.bytes <= xs[-1]) & ~((d.nccl_dtype == "half") & d.bytes.isin(xs))
    ]
    residual = float(
        np.sqrt(np.mean((rest.us.to_numpy() / np.interp(rest.bytes, xs, times) - 1) ** 2))
    )
    return (
        f"  - {{collective: {collective}, path: {path}, num_ranks: {ranks}, link: {LINK[name]}, "
        f"bytes: [{', '.join(nbytes(x * factor) for x in xs)}], "
        f"time: [{', '.join(f'{t:.4g} us' for t in times)}], residual: {max(residual, 0.01) * 100:.2g} %, "
        f'source: "{AIC} nccl-tests {op}, half; residual: sizes and int8 run not fitted"}}'
    )


# NCCL's all-to-all as EP's dispatch and combine on GB200 NVL72, us by ranks: mean of both, 4096 tokens of width 7168 in bf16, a
# copy to each of 8 of 256 experts (arXiv 2603.07685 table 7, 2026-03). The nccl-tests tables end at the four GPUs of a tray.
RACK_US = {8: 738.0, 16: 754.0, 32: 763.5, 64: 878.5}
RACK_BYTES = 8 * 4096 * 7168 * 2.0


def rack_curves(dev, name, root):
    """All-to-alls across trays: the level of RACK_US, the shape of the largest one inside a tray."""
    d = nccl_rows(dev, root, "alltoall", dev["ranks"][-1])
    half = d[(d.nccl_dtype == "half") & d.bytes.isin([s * MIB for s in POWERS_OF_FOUR])]
    n = dev["ranks"][-1]
    sizes = half.bytes.to_numpy() * (n - 1) / n
    times = np.maximum.accumulate(half.us.to_numpy())
    slope = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
    lines = []
    for ranks, us in RACK_US.items():
        sent = RACK_BYTES * (ranks - 1) / ranks
        tray_us = times[-1] + slope * (sent - sizes[-1])
        scale = (us - times[0]) / (tray_us - times[0])
        xs = [*sizes, sent]
        ts = [*(times[0] + (times - times[0]) * scale), us]
        lines.append(
            f"  - {{collective: all_to_all, path: nvlink, num_ranks: {ranks}, link: {LINK[name]}, "
            f"bytes: [{', '.join(nbytes(x) for x in xs)}], time: [{', '.join(f'{t:.4g} us' for t in ts)}], residual: 12 %, "
            f'source: "arXiv 2603.07685 table 7, NCCL all-to-all of EP{ranks} on GB200, at {sent / MIB:.0f} MiB; below it the curve of '
            f'{n} GPUs, times above its floor by {scale:.2f}"}}'
        )
    return lines


# NVIDIA/nccl issue 1244 (2024-04): 2 nodes of 8 H20, NVLink 450 GB/s and one NDR NIC per GPU, all_reduce, us by MiB.
H20_ALL_REDUCE = {
    2.0**-10: 46.7,
    1: 121.8,
    4: 127.6,
    8: 146.5,
    16: 203.0,
    32: 298.5,
    64: 467.9,
    128: 1108.0,
    256: 2055.4,
    512: 3218.6,
}


def curve_line(collective, path, ranks, link, sizes, times, residual, source):
    return (
        f"  - {{collective: {collective}, path: {path}, num_ranks: {ranks}, link: {link}, bytes: [{', '.join(nbytes(s) for s in sizes)}], "
        f'time: [{", ".join(f"{t * 1e6:.4g} us" for t in times)}], residual: {residual} %, source: "{source}"}}'
    )


def network_line(collective, path, nic, sizes, times, residual, source):
    link = f"{num(nic / 1e9)} GB/s"
    return curve_line(collective, path, 16, link, sizes, times, residual, source)


def network_curves(dev):
    """all_to_all: per NIC. Reductions: two whole nodes, whose eight NICs one ring or tree uses together."""
    nic, wire = dev["nic"], dev["nic"] * 0.92
    lines = [
        network_line(
            "all_to_all",
            "nic",
            nic,
            [64 * 1024, 65536 * MIB],
            [35e-6 + s / wire for s in (64 * 1024, 65536 * MIB)],
            25,
            f"derived: {num(wire / 1e9)} GB/s per NIC, bytes that leave the node; nccl-tests issues 267, 290: 46-49 of 50 GB/s; "
            "DeepEP on 2-8 H100 nodes 33-46 GB/s by the same count; floor: DeepEP notify 30-60 us",
        )
    ]
    if nic == 50e9:
        sizes = [s * MIB * 2 * 15 / 16 for s in H20_ALL_REDUCE]
        times = [t * 1e-6 for t in H20_ALL_REDUCE.values()]
        lines.append(
            network_line(
                "all_reduce",
                "nic",
                nic,
                sizes,
                times,
                20,
                "by analogy: nccl issue 1244 (2024-04), 2 nodes of 8 H20, same NVLink and NICs, NCCL tree over NVLS",
            )
        )
        start = 35e-6
    else:
        start = 46e-6
        sizes = [64 * 1024, 65536 * MIB]
        lines.append(
            network_line(
                "all_reduce",
                "nic",
                nic,
                sizes,
                [start + s / (8 * wire) for s in sizes],
                30,
                f"derived: eight NICs at {num(wire / 1e9)} GB/s used together (ring over whole nodes)",
            )
        )
    sizes = [64 * 1024, 65536 * MIB]
    for collective in ("all_gather", "reduce_scatter"):
        lines.append(
            network_line(
                collective,
                "nic",
                nic,
                sizes,
                [35e-6 + s / (8 * wire) for s in sizes],
                30,
                f"derived: eight NICs at {num(wire / 1e9)} GB/s used together (ring over whole nodes)",
            )
        )
    return lines
