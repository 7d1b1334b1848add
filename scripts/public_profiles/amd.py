"""MI300X and MI355X: curves from the few published measurements, as aiconfigurator and SimuMax have no table of them.

Where the shape or the level of a curve is another device's, its source says so.
"""

import numpy as np
from amd_tables import (
    ALLREDUCE_BLOG,
    AMD,
    ATTENTION,
    COUNT_US,
    GROUPED_BACKWARD,
    GROUPED_FORWARD,
    GROUPED_FP8,
    KITTENS,
    MORI_MI300X,
    MORI_MI355X,
    NARROW_HEADS,
    REDUCE_8,
    REDUCE_16,
    SEQ,
    SIDES,
    SMOKE,
    SQUARE,
    SQUARE_FP8,
    SUSTAINED_MI300X,
    THIN,
    TURBO,
)
from curve import MIB, Curve, interpolate, num, relative_spread
from devices import DEVICES
from gemm import flops_text, grouped_gemm
from network import curve_line
from operators import byte_curve, wide_router

WIDTH = [64, 128, 256, 512, 1024, 2048, 4096]


def thin_shapes():
    """FLOPs, smallest dimension and TFLOP/s."""
    rows = [(2.0 * m * n * k, min(n, k), us) for m, shapes in THIN.items() for n, k, us in shapes]
    flops, narrow, us = (np.array(column, float) for column in zip(*rows))
    return flops, narrow, flops / us / 1e6


def saturated(square):
    """Rate of large GEMMs by smallest dimension, over the square ones'; below 256 in proportion to it."""
    _, narrow, rate = thin_shapes()
    rates = [np.median(rate[abs(np.log2(narrow / w)) <= 0.5]) for w in WIDTH[2:-1]]
    rates = np.maximum.accumulate([rates[0] / 4, rates[0] / 2, *rates, max(square)])
    return np.minimum(rates, max(square)) / max(square)


def dense_curve(square, residual, source):
    size = [2.0 * n**3 for n in SIDES]
    rows = [
        [min(s, share * max(square)) * 1e12 for s in np.maximum.accumulate(square)]
        for share in saturated(SQUARE["mi355x"])
    ]
    return Curve(size, WIDTH, rows, residual, source, size_text=flops_text)


def dense(name):
    """bf16, and the types below it that have a table."""
    if name == "mi300x":
        square = np.minimum(SQUARE["mi325x"], SUSTAINED_MI300X)
        source = (
            f"by analogy with MI325X (the same compute units and clock): square GEMMs of torch.matmul, {KITTENS}; capped at "
            f"{num(SUSTAINED_MI300X)} TFLOP/s (sustained: SemiAnalysis 2024-12; at best 668: MAMF, stas00/ml-engineering 744d01e); "
            "narrower ones as on MI355X"
        )
        return dense_curve(square, 0.25, source), {}
    curve = dense_curve(SQUARE[name], 0.2, "")
    flops, narrow, rate = thin_shapes()
    fit = interpolate(curve.size, curve.width, curve.rows, flops, narrow, whole=True)
    curve.residual = max(0.2, relative_spread(rate * 1e12 / fit))
    curve.source = (
        f"square GEMMs of torch.matmul and, at 1024 and 2048, of {KITTENS}'s kernel; narrower ones: median by smallest dimension of "
        f"{len(rate)} tuned GEMMs (ROCm/aiter pull request 2559, 2026-03), below 256 in proportion to it; bursts, not sustained training"
    )
    source = f"square FP8 GEMMs of hipBLASLt, {KITTENS}; narrower ones in the proportion of bf16's; the casts of the inputs are not inside"
    return curve, {"fp8": dense_curve(SQUARE_FP8, 0.35, source)}


def gated(pairs):
    """Rate of the products together: GateUP has twice the FLOPs of Down."""
    return 3.0 * len(pairs) / sum(2.0 / up + 1.0 / down for up, down in pairs)


def grouped(dev, root, simumax):
    levels = [
        {m: gated([pair]) for m, pair in GROUPED_FORWARD.items()},
        {m: gated(pairs) for m, pairs in GROUPED_BACKWARD.items()},
    ]
    like = grouped_gemm(dev["like"], DEVICES[dev["like"]], root, simumax)[0]
    width = [w for w in like.width if w >= 256]
    low_rows = [m for m in like.size if m < min(GROUPED_FORWARD)]
    size = [*low_rows, *GROUPED_FORWARD]

    def at(m, w):
        return float(
            interpolate(
                like.size, like.width, like.rows, np.array([float(m)]), np.array([float(w)])
            )[0]
        )

    scale = dev["mamf"] / AMD["mi355x"]["mamf"]
    source = f"GroupedGEMM of DeepSeek-V3's experts on MI355X, one product an expert ({TURBO} pull request 284, 2026-04)"
    if scale < 1:
        source = f"by analogy: {source}, times {scale:.3g}, the ratio of the devices' MAMF (stas00/ml-engineering 744d01e)"
    source += f"; below 2048 rows and by width in the proportion of {DEVICES[dev['like']]['device']}'s curve"
    curves = []
    for level in levels:
        rows = []
        for w in width:
            share = at(1024, w) / at(1024, 2048)
            low = [at(m, w) / at(1024, 2048) * level[2048] for m in low_rows]
            rows.append([r * 1e12 * scale for r in [*low, *(share * level[m] for m in level)]])
        curves.append(Curve(size, width, rows, 0.35 if scale < 1 else 0.3, source))
    if scale < 1:
        return curves, {}
    fp8 = [
        Curve(
            size,
            width,
            [[r * ratio for r in row] for row in curve.rows],
            0.35,
            f"bf16's times {ratio:.2f}: FP8 (tensorwise) over bf16 of Triton at 4096 rows, quantization inside ({TURBO} pull request 252, 2026-03)",
        )
        for curve, ratio in zip(curves, GROUPED_FP8)
    ]
    return curves, {"fp8": fp8}


def attention(name):
    share, narrow_source = NARROW_HEADS[name]
    curves = []
    for rates, sums in zip(ATTENTION[name], ("", ", dq summed in fp32")):
        wide = [r * 1e12 for r in rates]
        source = (
            f"AITER, causal{sums}, head width 128, batch 4 and 8 (ROCm/aiter 0403bcd op_tests/cpp/mha/README.md); "
            f"width 64: times the forward ratio of {narrow_source}"
        )
        curves.append(
            Curve(SEQ, [64, 128], [[r * q for r, q in zip(wide, share)], wide], 0.2, source)
        )
    return curves


def byte_curves(dev):
    share, residual, source = dev["copy"]
    gather = share * 0.75 / 0.85
    return {
        "gather": byte_curve(
            dev["bw"],
            gather,
            4e-6,
            0.3,
            f"derived: {gather * 100:.0f} % of datasheet bandwidth, as much below a copy as on NVIDIA's devices; 4 us ramp",
        ),
        "streaming": byte_curve(
            dev["bw"],
            share,
            3e-6,
            residual,
            f"{share * 100:.3g} % of datasheet bandwidth: {source}; 3 us ramp",
        ),
        "optimizer": byte_curve(
            dev["bw"], share, 3e-6, 0.3, "derived: as streaming; no optimizer was published"
        ),
    }


def exchanges(name):
    """Bytes to other GPUs and us: of MI300X from rates, copies of a token to the ranks of 6 of many experts."""
    if name == "mi300x":
        copies = 8 * (1 - (7 / 8) ** 6)
        got = {t: t * copies * 7168 * 2.0 for t in MORI_MI300X}
        points = [
            (got[t] * 7 / 8, sum(got[t] / r for r in rates) / 2 / 1e3)
            for t, rates in MORI_MI300X.items()
        ]
        points.append((7 * 64 * MIB, 1485.0))
        source = (
            "ROCm/mori pull request 538 (2026-08), mean of dispatch and combine, 64 to 2048 tokens; largest: TransferBench a2a, "
            f"{ALLREDUCE_BLOG}; a library's kernels, no table of RCCL's all-to-all was found; floor as its all-reduce"
        )
    else:
        points = [
            (rate * dispatch * 1e3 * 7 / 8, (dispatch + combine) / 2)
            for rate, dispatch, combine in MORI_MI355X.values()
        ]
        source = (
            "ROCm/mori ac97b1d, its EP8 page, mean of dispatch and combine, 64 to 16384 tokens; a library's kernels, no table of "
            "RCCL's all-to-all was found; floor as MI300X's all-reduce"
        )
    return [(64 * 1024.0, COUNT_US), *points], source


def measured(collective, path, ranks, link, table, residual, source):
    """A curve of sizes and us; protocols change between sizes, but more bytes never take less time."""
    sizes, us = zip(*table)
    times = np.maximum.accumulate(us) * 1e-6
    return curve_line(collective, path, ranks, link, sizes, times, residual, source)


def bus_bytes(table, ranks):
    return [(mib * MIB * 2 * (ranks - 1) / ranks, us) for mib, us in table.items()]


def communication(name, dev):
    own = name == "mi300x"
    inside = f"rccl-tests on 8 MI300X, RCCL 2.22.3, {ALLREDUCE_BLOG}"
    link = AMD["mi300x"]["link"]
    # Bus bandwidth counts 15 of a buffer's 16 parts; 8 leave the node.
    wire = 50e9 * 8 / 15
    leaving = [(s, 35 + s / wire * 1e6) for s in (64 * 1024, 65536 * MIB)]
    points, exchange_source = exchanges(name)
    return [
        measured("all_to_all", "nvlink", 8, dev["link"], points, 20, exchange_source),
        measured(
            "all_reduce",
            "nvlink",
            8,
            link,
            bus_bytes(REDUCE_8, 8),
            10 if own else 25,
            inside if own else f"by analogy: {inside}, at the links that it had",
        ),
        measured(
            "all_to_all",
            "nic",
            16,
            "50 GB/s",
            leaving,
            40,
            f"derived: {num(wire / 1e9)} GB/s per NIC leave the node where rccl-tests shows 50 GB/s over two nodes, which AMD's "
            "ROCm/cvs dddd914 expects at 16 GiB; floor as of the other public profiles",
        ),
        measured(
            "all_reduce",
            "nic",
            16,
            "50 GB/s",
            bus_bytes(REDUCE_16[name], 16),
            20,
            f"rccl-tests on two nodes of 8, {dev['card']}: {SMOKE}",
        ),
    ]


def profile(name, root, simumax):
    """Kernels by kind, curves of narrower types, lines of communication and overheads of one device."""
    dev = AMD[name]
    gemm, narrow_gemm = dense(name)
    experts, narrow_experts = grouped(dev, root, simumax)
    kernels = {
        "dense_gemm": (gemm, None),
        "grouped_gemm": experts,
        "attention": attention(name),
        "router": wide_router(dev["bw"], gemm),
        **{kind: (curve, None) for kind, curve in byte_curves(dev).items()},
    }
    narrow = {
        "dense_gemm": {kind: (curve, None) for kind, curve in narrow_gemm.items()},
        "grouped_gemm": narrow_experts,
    }
    return dev, kernels, narrow, communication(name, dev)


def waits(dev):
    """The overheads that are the device's: the count exchange, and what DeepEP's share of the compute units slows."""
    taken = 80
    return (
        COUNT_US,
        f"rccl-tests all_reduce of 8 bytes, 8 MI300X ({ALLREDUCE_BLOG})",
        dev["units"] / (dev["units"] - taken),
        f"{dev['units']} compute units of which DeepEP takes {taken} (turbo_deepep_num_cu of AMD-AGI/Primus' recipes)",
    )
