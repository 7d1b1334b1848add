"""dense_gemm and grouped_gemm: shape from burst tables, level from training software."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from curve import Curve, interpolate, num, relative_spread, rising, time_monotone
from devices import (
    AIC,
    BLACKWELL,
    DEVICES,
    GROUPED_BACKWARD_RATIO,
    SIMUMAX,
    SUSTAINED_DENSE,
    SUSTAINED_GROUPED,
)


def simumax_operators(path, kind):
    """Rows of an operator table: shape numbers by letter, layout or stage, and FLOP/s."""
    table = json.loads(Path(path).read_text())["accelerator"]["op"][kind]
    rows = []
    for key, efficiency in table["accurate_efficient_factor"].items():
        fields = dict(re.findall(r"(\w+)=(\w+)", key))
        rows.append(
            {
                **{k.upper(): int(v) for k, v in fields.items() if k.lower() in "mnk" or k == "ng"},
                "what": fields.get("layout", fields.get("stage")),
                "rate": efficiency * table["tflops"] * 1e12,
            }
        )
    return pd.DataFrame(rows)


def simumax_dense(path):
    d = simumax_operators(path, "matmul")
    d["flops"] = 2.0 * d.M * d.N * d.K
    return d[d[["M", "N", "K"]].min(axis=1) >= 512]


def gemm_grid(d, size, width, cap):
    """Median rate by (FLOPs, smallest dimension); cells that no GEMM can have take the narrower row or the last rate."""
    rows = []
    for w in width:
        row = []
        for s, limit in zip(size, cap):
            cell = (
                (d.narrow > w * 0.99) & (d.narrow < w * 1.01) & (abs(np.log2(d.flops / s)) <= 1.0)
            )
            row.append(min(d.rate[cell].median(), limit) if cell.sum() >= 5 else np.nan)
        for j in range(len(row)):
            if np.isnan(row[j]):
                row[j] = rows[-1][j] if rows and j < 4 else row[j - 1]
        rows.append(time_monotone(size, row))
    return rows


def flops_text(s):
    return f"{s / 1e9:.4g} GFLOP" if s < 1e12 else f"{s / 1e12:.4g} TFLOP"


DENSE_SIZE = [2.0**28, 2.0**30, 2.0**32, 2.0**34, 2.0**36, 2.0**38, 2.0**40, 2.0**42]
DENSE_WIDTH = [32, 64, 128, 256, 512, 1024, 2048, 4096]
EXPERT_HIDDEN = 5120  # of the fused-MoE and operator tables: most models lie between 2048 and 7168


def dense_table(dev, root, kind, kernel, version):
    """Shapes and rates of one type."""
    d = pd.read_parquet(f"{root}/data/{dev['dir']}/gemm/{version}/gemm_perf.parquet")
    d = d[(d.gemm_dtype == kind) & ((d.kernel_source == kernel) if kernel else True)]
    d = d.assign(flops=2.0 * d.m * d.n * d.k, narrow=d[["m", "n", "k"]].min(axis=1))
    return d.assign(rate=d.flops / (d.latency * 1e-3))


def dense_gemm(name, dev, root, simumax, layouts=("TN",), raised=True):
    """Rates by (FLOPs, smallest dimension). `layouts` of the operators in training: TN forward, NN and NT backward."""
    version, kernel = dev["gemm"]
    d = dense_table(dev, root, "bfloat16", kernel, version)
    size, width = DENSE_SIZE, DENSE_WIDTH
    top = SUSTAINED_DENSE.get(name, dev["mamf"] or dev["peak"])
    cap, how = [top] * len(size), f"; capped at {num(top / 1e12)} TFLOP/s ({dev['sustained']})"
    if name in BLACKWELL:
        ops = simumax_dense(f"{simumax}/b200_bf16_ceperm.json")
        scale = dev["mamf"] / DEVICES["b200"]["mamf"]

        def sustained(s):
            near = ops[(abs(np.log2(ops.flops / s)) <= 1.0) & ops.what.isin(layouts)]
            return near.rate.median() * scale if len(near) >= 5 else np.inf

        cap = [sustained(s) for s in size]
        how = f"; capped by size at the median of {SIMUMAX}, B200, in training software" + (
            "" if scale == 1.0 else f" times {scale:.3g} ({dev['mamf_source']})"
        )
    rows = gemm_grid(d, size, width, cap)
    if name in BLACKWELL:
        how += "; no wider GEMM runs slower"
        if raised:
            # B200's power limit holds its large GEMMs at 1.1 PFLOP/s; the others have more power, and what B300 reaches says
            # that no larger GEMM need run slower there.
            rows = [rising(row) for row in rows]
            how += ", no larger one either (OLMo-core report table 34, 2026-10: 1423 TFLOP/s at 8192 x 16384 x 131072 on B300)"
        rows = np.maximum.accumulate(rows, axis=0).tolist()
    inside = d[(d.flops >= size[0]) & (d.flops <= size[-1]) & (d.narrow >= 32)]
    fit = interpolate(
        size,
        width,
        rows,
        inside.flops.to_numpy(),
        inside.narrow.to_numpy().astype(float),
        whole=True,
    )
    src = f"{AIC} gemm/{version} bf16, median by (FLOPs, smallest dimension) of {len(inside)} shapes{how}"
    forward = Curve(
        size, width, rows, relative_spread(inside.rate.to_numpy() / fit), src, size_text=flops_text
    )
    return forward


# Types below bf16, named as the tables name them. The tables time operators with bf16 activations, under CUDA graphs: the cast
# of the input is inside.
NARROW = ("fp8", "fp8_block", "nvfp4")
NARROW_TABLE = "trtllm/1.3.0rc20"


def narrow_dense(kind, dev, root, bf16):
    """Rates of a narrower type: of the table, times what bf16 reaches in training of what it reaches in that table."""
    open_end = [np.inf] * len(DENSE_SIZE)
    burst, ours = (
        dense_table(dev, root, table, None, NARROW_TABLE) for table in ("bfloat16", kind)
    )
    grid = [np.array(gemm_grid(d, DENSE_SIZE, DENSE_WIDTH, open_end)) for d in (burst, ours)]
    rows = grid[1] * np.minimum(1.0, np.array(bf16.rows) / grid[0])
    rows = np.maximum.accumulate([rising(row) for row in rows], axis=0).tolist()
    inside = ours[
        (ours.flops >= DENSE_SIZE[0]) & (ours.flops <= DENSE_SIZE[-1]) & (ours.narrow >= 32)
    ]
    fit = interpolate(
        DENSE_SIZE,
        DENSE_WIDTH,
        rows,
        inside.flops.to_numpy(),
        inside.narrow.to_numpy().astype(float),
        whole=True,
    )
    src = (
        f"{AIC} gemm/{NARROW_TABLE} {kind}, the cast of the input inside, median of {len(inside)} shapes; "
        "times what bf16 reaches in training software of what it reaches in the same table"
    )
    residual = max(0.2, relative_spread(inside.rate.to_numpy() / fit))
    return Curve(DENSE_SIZE, DENSE_WIDTH, rows, residual, src, size_text=flops_text)


def dense_ratio(size, width, narrow, bf16):
    """A narrower type's rate over bf16's, of one expert's GEMM run as a dense one (rows x hidden x two widths)."""
    rows, w = np.meshgrid(np.array(size, float), np.array(width, float))
    flops, smallest = (4.0 * rows * w * EXPERT_HIDDEN).ravel(), np.minimum(rows, 2.0 * w).ravel()
    ours, theirs = (
        interpolate(c.size, c.width, c.rows, flops, smallest, whole=True) for c in (narrow, bf16)
    )
    return (ours / theirs).reshape(rows.shape)


def narrow_grouped(kind, dev, root, bf16, dense):
    """Rates of a narrower type by rows and width: bf16's, times the ratio of the two types in the fused-MoE table, or of their
    dense GEMMs (`dense`: narrow, bf16) where that is better: TransformerEngine runs an expert's GEMM as a dense one."""
    ours, theirs = fused_moe_rates(dev, root, kind), fused_moe_rates(dev, root, "bfloat16")

    def by_rows(d, size, width):
        cell = d[(abs(np.log2(d.rows / size)) <= 0.5) & (abs(np.log2(d.f / width)) <= 0.5)]
        return cell.rate.quantile(0.75) if len(cell) >= 4 else np.nan

    forward, backward = bf16
    ratio = np.array(
        [[by_rows(ours, s, w) / by_rows(theirs, s, w) for s in forward.size] for w in forward.width]
    )
    middle = float(np.nanmedian(ratio))
    ratio = np.where(np.isnan(ratio), middle, ratio)
    ratio = np.maximum(ratio, dense_ratio(forward.size, forward.width, *dense))
    src = (
        f"bf16's times {ratio.min():.2f} to {ratio.max():.2f}: {kind} over bf16 by (rows, width) in {AIC} "
        f"moe/{dev['moe'][0]}, the cast of the input inside; {middle:.2f} where the table has no such shape; as of one expert's dense GEMM where that is more"
    )

    def scaled(curve):
        rows = [rising(row) for row in np.array(curve.rows) * ratio]
        return Curve(curve.size, curve.width, rows, max(0.3, curve.residual), src)

    return scaled(forward), scaled(backward) if backward else None


def by_analogy(curves):
    """MXFP8 on Blackwell, whose GEMMs no public table of training shapes has: as blockwise FP8."""
    return tuple(
        Curve(
            c.size,
            c.width,
            c.rows,
            max(0.35, c.residual),
            f"by analogy with fp8_block: {c.source}",
            size_text=c.size_text,
        )
        if c
        else None
        for c in curves
    )


def fused_moe_rates(dev, root, kind="bfloat16"):
    """Grouped-GEMM rates by rows and width, derived from fused-MoE times."""
    version, distribution = dev["moe"]
    d = pd.read_parquet(f"{root}/data/{dev['dir']}/moe/{version}/moe_perf.parquet")
    d = d[(d.moe_dtype == kind) & (d.distribution == distribution)].copy()
    if distribution != "balanced":
        d = d[d.moe_ep_size == 1]
    local = d.num_experts / d.moe_ep_size
    pairs = d.num_tokens * d.topk / d.moe_ep_size
    f = d.inter_size / d.moe_tp_size
    gates = np.where(d.kernel_source.str.contains("nongated"), 2, 3)
    flops = 2.0 * gates * pairs * d.hidden_size * f
    other = 2.0 * (
        pairs * d.hidden_size * 2
        + pairs * f * gates
        + pairs * d.hidden_size
        + d.num_tokens * d.hidden_size
    )
    seconds = d.latency * 1e-3 - other / (0.8 * dev["bw"])
    d = d.assign(
        rows=d.num_tokens * d.topk / d.num_experts,
        f=f,
        rate=flops / seconds,
        keep=seconds > 0.4e-3 * d.latency,
        local=local,
    )
    return d[d.keep & (d.local >= 2) & (d.local <= 256) & (d.hidden_size >= 2048)]


def simumax_grouped(path, width, stages):
    """Rate of the two GEMMs of a gated expert of this width, by rows; the two matrices weigh 2 : 1 in FLOPs."""
    d = simumax_operators(path, "group_matmul")
    up = d[2 * width == d.N].pivot_table(index="M", columns="what", values="rate")
    down = d[width == d.K].pivot_table(index="M", columns="what", values="rate")
    time = sum(2.0 / up[s] + 1.0 / down[s] for s in stages)
    return 3.0 * len(stages) / time


def training_ratio(path, table, stages, size):
    """What training software achieves over the fused-MoE rates, by rows, at the width that both have."""
    measured = simumax_grouped(path, 1536, stages)
    rows = np.clip(size, measured.index.min(), measured.index.max())
    here = np.interp(np.log(rows), np.log(measured.index), measured.to_numpy())
    return here / np.interp(np.log(rows), np.log(size), table)


def grouped_gemm(name, dev, root, simumax):
    d = fused_moe_rates(dev, root)
    size = [16, 64, 256, 512, 1024, 4096]
    bands = [
        (128, 128, 128, 0),
        (256, 256, 256, 0),
        (512, 512, 512, 0),
        (768, 704, 768, 1),
        (1536, 1536, 1856, 1),
        (2048, 2048, 3072, 1),
        (14336, 14336, 16384, 1),
    ]
    top = SUSTAINED_GROUPED.get(name, dev["mamf"] or dev["peak"])
    width, rows = [], []
    for w, low, high, native in bands:
        cells = [
            d[
                (d.f >= low)
                & (d.f <= high)
                & (abs(np.log2(d.rows / s)) <= 0.5)
                & ((d.moe_tp_size == 1) if native else True)
            ]
            for s in size
        ]
        row = [cell.rate.quantile(0.75) if len(cell) >= 4 else np.nan for cell in cells]
        if np.isnan(row).sum() >= 3:
            continue
        row = rising(row)  # beyond the measured rows of this width: the last rate is held
        width.append(w)
        rows.append(row)
    src = (
        f"derived from {AIC} moe/{dev['moe'][0]} bf16: fused-MoE time less permute, activation and finalize bytes at 80 % of datasheet bandwidth, "
        "upper quartile by (rows, width); mostly held beyond 1024 rows"
    )
    back_rows, back_src = None, ""
    table_file = {
        **{blackwell: "b200_bf16_ceperm.json" for blackwell in BLACKWELL},
        "a100": "a100_pcie.json",
    }.get(name)
    if table_file:
        path, reference = (
            f"{simumax}/{table_file}",
            rows[width.index(1536)] if 1536 in width else rows[0],
        )
        if name in BLACKWELL:
            reference = [r * DEVICES["b200"]["mamf"] / dev["mamf"] for r in reference]
        forward = training_ratio(path, reference, ["fwd"], size)
        backward = training_ratio(path, reference, ["bwd_grad_act", "bwd_grad_w"], size)
        machine = {"a100": "A100 PCIe"}.get(name, "B200")
        limit = max(simumax_grouped(path, 1536, ["fwd"])) * (
            dev["mamf"] / DEVICES["b200"]["mamf"] if name in BLACKWELL else 1
        )
        back_rows = [rising([min(r * q, limit) for r, q in zip(row, backward)]) for row in rows]
        rows = [rising([min(r * q, limit) for r, q in zip(row, forward)]) for row in rows]
        src += f"; by rows scaled to {SIMUMAX}, {machine}, width 1536 (training software), at most {num(limit / 1e12)} TFLOP/s"
        back_src = "as forward, scaled to its input and weight gradients"
        inside = None
    else:
        rows = [time_monotone(size, [min(r, top) for r in row]) for row in rows]
        inside = d[
            (d.rows >= size[0])
            & (d.rows <= size[-1])
            & (d.f >= width[0])
            & (d.f <= width[-1])
            & (d.moe_tp_size == 1)
        ]
        src += f"; capped at {num(top / 1e12)} TFLOP/s" + (
            " (TransformerEngine PR 2045, GroupedLinear on H100)"
            if name in SUSTAINED_GROUPED
            else ""
        )
        if name in SUSTAINED_GROUPED:
            back_rows = [[r * GROUPED_BACKWARD_RATIO for r in row] for row in rows]
            back_src = f"as forward, times {GROUPED_BACKWARD_RATIO}: TransformerEngine on H100, SonicMoE figure 14 (arXiv 2512.14080)"
    residual = (
        0.3
        if inside is None
        else relative_spread(
            inside.rate.to_numpy()
            / interpolate(size, width, rows, inside.rows.to_numpy(), inside.f.to_numpy())
        )
    )
    back = Curve(size, width, back_rows, residual, back_src) if back_rows else None
    return Curve(size, width, rows, residual, src), back
