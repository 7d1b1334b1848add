"""attention, fused_expert, router, gather, streaming and optimizer."""

import numpy as np
import pandas as pd
from curve import MIB, Curve, byte_rate, interpolate, nbytes, relative_spread
from devices import AIC, BLACKWELL, DEVICES, SIMUMAX

# FlashAttention-3 figures (arXiv 2407.08608, H100, head width 128): forward causal, and backward over forward without mask.
SEQ = [512, 1024, 2048, 4096, 8192, 16384]
FA3_BACKWARD_RATIO = [316 / 467, 424 / 565, 501 / 625, 542 / 638, 559 / 646, 561 / 648]


def attention(dev, root, dtype="bfloat16"):
    d = pd.read_parquet(
        f"{root}/data/{dev['dir']}/attention/{dev['att']}/context_attention_perf.parquet"
    )
    d = d[(d.attn_dtype == dtype) & (d.kv_cache_dtype == dtype)]
    if "window_size" in d:
        d = d[d.window_size == 0]
    d = d[(d.batch_size * d.num_heads * d.isl >= 131072) & (d.num_heads >= 8)]
    r = (
        2.0
        * d.batch_size
        * d.num_heads
        * d.head_dim
        * d.isl.astype(float) ** 2
        / (d.latency * 1e-3)
    )
    width = [w for w in (64, 128, 256) if (d.head_dim == w).any()]
    rows = [[r[(d.isl == s) & (d.head_dim == w)].median() for s in SEQ] for w in width]
    inside = d.isl.isin(SEQ) & d.head_dim.isin(width)
    fit = interpolate(
        SEQ,
        width,
        rows,
        d.isl[inside].to_numpy().astype(float),
        d.head_dim[inside].to_numpy().astype(float),
    )
    src = f"{AIC}: attention/{dev['att']} context, {'bf16' if dtype == 'bfloat16' else dtype}; causal FLOPs (half of 4 S^2 d per head); includes the KV-cache write"
    forward = Curve(SEQ, width, rows, relative_spread(r[inside].to_numpy() / fit), src)
    back_rows = [[a * q for a, q in zip(row, FA3_BACKWARD_RATIO)] for row in rows]
    back = Curve(
        SEQ,
        width,
        back_rows,
        0.2,
        "derived: forward times the backward/forward ratio of FlashAttention-3 (arXiv 2407.08608, H100, head width 128)",
    )
    return forward, back


# H200 measurements of this project, November 2026 (CUDA 13.0, driver 580, PyTorch 2.11, Triton 3.6).
OWN = "project measurement, one H200, CUDA 13.0, PyTorch 2.11, 2026-11"


def fused_expert(dev, name, paper):
    """Rates at infinite rows per expert by head width, from one measured point each; M / (M + 64) is the padding to tiles of 128."""
    if paper:
        points = {128: (81, 51.5, 1400), 256: (90, 38, 1024)}
        what = "FlexAttention experts of the Multi-Head LatentMoE authors (arXiv 2602.04870): d_h 128 81/52, d_h 256 90/38 TFLOP/s forward/backward"
    else:
        points = {128: (144, 176, 2048), 256: (267, 311, 1024)}
        what = "two torch._grouped_mm and GELU, not a fused kernel: d_h 128 f 256 144/176, d_h 256 f 512 267/311 TFLOP/s forward/backward"
    scale = (
        dev["bw"] / DEVICES["h200"]["bw"]
        if not paper
        else min(1.0, dev["mamf"] / DEVICES["h200"]["mamf"])
    )
    size = [128, 512, 1024, 2048, 8192]
    curves = []
    for k in (0, 1):
        inf = {w: points[w][k] * 1e12 * (points[w][2] + 64) / points[w][2] * scale for w in points}
        inf[64] = inf[128] / (2 if not paper else 1.25)
        rows = [[inf[w] * m / (m + 64) for m in size] for w in sorted(inf)]
        here = (
            OWN
            if name == "h200"
            else f"by analogy: H200 ({OWN}) times the ratio of memory bandwidths (memory bound)"
        )
        curves.append(
            Curve(
                size,
                sorted(inf),
                rows,
                0.15 if name == "h200" else 0.35,
                (
                    f"{here}; {what}; d_h 64 and the dependence on rows are derived (tiles of 128 rows)"
                    if k == 0
                    else "as forward"
                ),
            )
        )
    return curves


ROUTER_SIZE = [1024, 4096, 32768, 262144]
ROUTER_EXPERTS = 128


def wide_router_rows(bw, gemm, width):
    """A bf16 GEMM and a top-k over fp32 scores, forward and backward."""
    row, brow = [], []
    for s in ROUTER_SIZE:
        flops = 2.0 * s * width * ROUTER_EXPERTS
        g = float(
            interpolate(
                gemm.size,
                gemm.width,
                gemm.rows,
                np.array([flops]),
                np.array([float(ROUTER_EXPERTS)]),
                whole=True,
            )[0]
        )
        scores = 20.0 * s * ROUTER_EXPERTS / (0.8 * bw) + 15e-6
        row.append(flops / (flops / g + scores))
        brow.append(2 * flops / (2 * flops / g + scores))
    return row, brow


WIDE_ROUTER = "derived, bf16 GEMM to 128 scores, 20 B per score of softmax/top-k traffic, 15 us of small kernels"
ROUTER_BACKWARD = "per 2 x forward FLOPs; sources and derivation as forward"


def wide_router(bw, gemm):
    """Without HP's narrow one."""
    width = [1024, 4096, 8192]
    rows, back = zip(*(wide_router_rows(bw, gemm, w) for w in width))
    return (
        Curve(ROUTER_SIZE, width, rows, 0.3, f"width: input width of the router; {WIDE_ROUTER}"),
        Curve(ROUTER_SIZE, width, back, 0.4, ROUTER_BACKWARD),
    )


def router(dev, name, gemm, paper):
    """By input width: narrow rows are the fused HP router."""
    fp32 = dev["fp32"] / 67
    narrow = {64: 7.5e12, 128: 13.9e12, 256: 8.2e12}
    narrow_back = {64: 7.4e12, 128: 9.6e12, 256: 8.3e12}
    rows, back = [], []
    width = [64, 128, 256, 1024, 4096, 8192]
    for w in width:
        if w <= 256:
            flops = [2.0 * s * w * ROUTER_EXPERTS for s in ROUTER_SIZE]
            row = [f / (f / (narrow[w] * fp32) + 5e-6) for f in flops]
            brow = [2 * f / (2 * f / (narrow_back[w] * fp32) + 10e-6) for f in flops]
        else:
            row, brow = wide_router_rows(dev["bw"], gemm, w)
        rows.append(row)
        back.append(brow)
    text = (
        "width: input width of the router. d_h <= 256: fused fp32 router of arXiv 2602.04870 "
        f"({OWN}: 13.9 TFLOP/s at 128, 7.5 at 64; 256: einsum and top-k, 8.2), scaled by fp32 peak; "
        f"wider: {WIDE_ROUTER}"
    )
    return (
        Curve(ROUTER_SIZE, width, rows, 0.3, text),
        Curve(ROUTER_SIZE, width, back, 0.4, ROUTER_BACKWARD),
    )


def byte_curve(bw, fraction, ramp, residual, source):
    """A share of the datasheet's bandwidth after a ramp."""
    size = [MIB * s for s in (0.25, 1, 4, 16, 64, 256, 65536)]
    return Curve(
        size,
        [1],
        [[s / (s / (fraction * bw) + ramp) for s in size]],
        residual,
        source,
        size_text=nbytes,
        rate_text=byte_rate,
    )


def byte_curves(dev, name):
    measured = name in BLACKWELL

    def curve(*given):
        return byte_curve(dev["bw"], *given)

    copy = "device copy on H200 reads+writes 4.29 TB/s, 89 % of datasheet (" + OWN + ")"
    return {
        "gather": (
            curve(
                0.50,
                4e-6,
                0.2,
                f"{SIMUMAX}, B200: permute at 50 % of datasheet bandwidth; 4 us ramp",
            )
            if measured
            else curve(
                0.75,
                4e-6,
                0.25,
                f"derived: 75 % of datasheet bandwidth for rows of 0.25 KiB and more, 4 us ramp; {copy}; aiconfigurator assumes 80 % and 3 us",
            )
        ),
        "streaming": (
            curve(
                0.666,
                3e-6,
                0.2,
                f"{SIMUMAX}, B200: elementwise operators at 66.6 % of datasheet bandwidth; 3 us ramp",
            )
            if measured
            else curve(
                0.85,
                3e-6,
                0.12,
                "derived: 85 % of datasheet bandwidth, 3 us ramp; copy as under gather",
            )
        ),
        "optimizer": curve(
            0.80,
            3e-6,
            0.15,
            "derived: 80 % of datasheet bandwidth; PyTorch fused AdamW, pytorch/pytorch PR 119842 (2024-02): 547 M bf16 parameters in 3.56 ms on H100 = 2.15 TB/s",
        ),
    }
