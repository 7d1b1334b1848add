"""Builds scenarios/profiles/*_public.yaml from public measurement tables.

usage: python3 scripts/public_profiles.py SYSTEMS_DIR SIMUMAX_DIR OUT_DIR [KERNELS_CSV]   (needs pandas and pyarrow)
SYSTEMS_DIR: systems/ of github.com/ai-dynamo/aiconfigurator (Apache-2.0) at commit 095f58a.
SIMUMAX_DIR: configs/system/ of github.com/MooreThreads/SimuMax at commit 4dcaae5: operators timed inside training software.
KERNELS_CSV: docs/kernels_h200.csv, headway-bench's measurements of headway's own kernels; writes h200_headway_kernels.yaml.
"""
import json
import re
import sys

import numpy as np
import pandas as pd

MIB = 2.0**20
SIMUMAX = "SimuMax 4dcaae5 (2026-05-11) operator table"
AIC = "aiconfigurator 095f58a (2026-08-21)"  # NVIDIA, Apache-2.0; the folder is systems/data/<machine>

DEVICES = {
    "a100": dict(sustained="MAMF, stas00/ml-engineering 2026", dir="a100_sxm", device="NVIDIA A100-SXM4-80GB", peak=312e12, mamf=271.2e12, bw=2.039e12, nccl="2.27.3",
                 gemm=("sglang/0.5.10", None), moe=("trtllm/1.0.0", "power_law_1.01"), att="trtllm/1.0.0", nic=25e9, sms=108, fp32=19.5, ranks=(2, 4, 8)),
    "h100": dict(sustained="sustained: SemiAnalysis 2024-12", dir="h100_sxm", device="NVIDIA H100 80GB HBM3", peak=989e12, mamf=794.5e12, bw=3.35e12, nccl="2.29.2",
                 gemm=("vllm/0.24.0", "torch.nn.functional.linear"), moe=("trtllm/1.3.0rc20", "balanced"), att="trtllm/1.3.0rc20", nic=50e9, sms=132, fp32=67, ranks=(2, 4, 8)),
    "h200": dict(sustained="sustained: SemiAnalysis 2024-12", dir="h200_sxm", device="NVIDIA H200", peak=989e12, mamf=794.5e12, bw=4.8e12, nccl="2.29.2",
                 gemm=("vllm/0.24.0", "torch.nn.functional.linear"), moe=("trtllm/1.3.0rc20", "balanced"), att="trtllm/1.3.0rc20", nic=50e9, sms=132, fp32=67, ranks=(2, 4, 8)),
    "b200": dict(sustained="x", dir="b200_sxm", device="NVIDIA B200", peak=2250e12, mamf=1745e12, bw=8e12, nccl="2.29.2",
                 gemm=("vllm/0.24.0", "torch.nn.functional.linear"), moe=("trtllm/1.3.0rc20", "balanced"), att="trtllm/1.3.0rc20", nic=50e9, sms=148, fp32=75, ranks=(2, 4, 8)),
    "gb200": dict(sustained="x", dir="gb200", device="NVIDIA GB200", peak=2500e12, mamf=1822e12, bw=8e12, nccl="2.29.2",
                  gemm=("vllm/0.24.0", "torch.nn.functional.linear"), moe=("trtllm/1.3.0rc20", "balanced"), att="trtllm/1.3.0rc20", nic=50e9, sms=152, fp32=80, ranks=(2, 4)),
    "l40s": dict(sustained="datasheet", dir="l40s", device="NVIDIA L40S", peak=362e12, mamf=None, bw=0.864e12, nccl="2.27.3",
                 gemm=("vllm/0.24.0", "torch.nn.functional.linear"), moe=("trtllm/1.3.0rc20", "balanced"), att="trtllm/1.3.0rc20", nic=None, sms=142, fp32=91.6, ranks=(2, 4, 8)),
}

# FlashAttention-3 figures (arXiv 2407.08608, H100, head width 128): forward causal, and backward over forward without mask.
SEQ = [512, 1024, 2048, 4096, 8192, 16384]
FA3_BACKWARD_RATIO = [316 / 467, 424 / 565, 501 / 625, 542 / 638, 559 / 646, 561 / 648]


def num(x):
    return f"{x:.4g}" if abs(x) < 1e4 else f"{x:.0f}"


def rate(x):
    return f"{num(x / 1e12)} TFLOP/s"


def byte_rate(x):
    return f"{num(x / 1e9)} GB/s"


def nbytes(x):
    return f"{x / MIB:.6g} MiB" if x >= MIB / 4 else f"{x / 1024:.6g} KiB"


class Curve:
    def __init__(self, size, width, rows, residual, source, size_text=str, rate_text=rate):
        self.__dict__.update(locals())

    def lines(self, indent):
        pad = " " * indent
        out = [f"{pad}size: [{', '.join(self.size_text(s) for s in self.size)}]"]
        if self.width != [1]:
            out.append(f"{pad}width: [{', '.join(str(w) for w in self.width)}]")
        out.append(f"{pad}rate:")
        out += [f"{pad}  - [{', '.join(self.rate_text(r) for r in row)}]" for row in self.rows]
        out += [f"{pad}residual: {self.residual * 100:.2g} %", f"{pad}source: \"{self.source}\""]
        return out


def relative_spread(ratio):
    """Half of the 16..84 % range of measured over fitted: a standard deviation that ignores outliers."""
    return float((np.quantile(ratio, 0.84) - np.quantile(ratio, 0.16)) / 2)


def interpolate(size, width, rows, s, w):
    """RateCurve::at of the vocabulary."""
    logs = np.log(size)
    at_rows = [np.interp(np.log(s), logs, row) for row in rows]
    if len(width) == 1:
        return at_rows[0]
    lw = np.clip(np.log(w), np.log(width[0]), np.log(width[-1]))
    hi = np.clip(np.searchsorted(np.log(width), lw, side="right"), 1, len(width) - 1)
    frac = (lw - np.log(width)[hi - 1]) / (np.log(width)[hi] - np.log(width)[hi - 1])
    stack = np.array(at_rows)
    idx = np.arange(len(lw))
    return stack[hi - 1, idx] * (1 - frac) + stack[hi, idx] * frac


def time_monotone(size, row):
    """A bigger problem must not take less time: rate may grow at most in proportion to size."""
    out = list(row)
    for i in range(len(out) - 2, -1, -1):
        out[i] = max(out[i], out[i + 1] * size[i] / size[i + 1] * 1.0001)
    return out


# What training software sustains on large GEMMs, where the tables above are bursts at boost clocks.
#   H100, H200: about 720 TFLOP/s on the GEMM shapes of a Llama 70B layer (SemiAnalysis, MI300X vs H100 vs H200, 2024-12).
SUSTAINED_DENSE = {"h100": 720e12, "h200": 720e12}
#   Highest published rate of TransformerEngine's GroupedLinear on H100 (TransformerEngine PR 2045: 554 to 651 TFLOP/s).
SUSTAINED_GROUPED = {"h100": 651e12, "h200": 651e12}
# Backward over forward of Megatron's (TransformerEngine) grouped GEMM on H100: SonicMoE figure 14, four shapes, mean.
GROUPED_BACKWARD_RATIO = 0.94


def simumax_operators(path, kind):
    """Rows of an operator table: shape numbers by letter, layout or stage, and FLOP/s."""
    table = json.load(open(path))["accelerator"]["op"][kind]
    rows = []
    for key, efficiency in table["accurate_efficient_factor"].items():
        fields = dict(re.findall(r"(\w+)=(\w+)", key))
        rows.append({**{k.upper(): int(v) for k, v in fields.items() if k.lower() in "mnk" or k == "ng"},
                     "what": fields.get("layout", fields.get("stage")), "rate": efficiency * table["tflops"] * 1e12})
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
            cell = (d.narrow > w * 0.99) & (d.narrow < w * 1.01) & (abs(np.log2(d.flops / s)) <= 1.0)
            row.append(min(d.rate[cell].median(), limit) if cell.sum() >= 5 else np.nan)
        for j in range(len(row)):
            if np.isnan(row[j]):
                row[j] = rows[-1][j] if rows and j < 4 else row[j - 1]
        rows.append(time_monotone(size, row))
    return rows


def dense_gemm(name, dev, root, simumax):
    version, kernel = dev["gemm"]
    d = pd.read_parquet(f"{root}/data/{dev['dir']}/gemm/{version}/gemm_perf.parquet")
    d = d[(d.gemm_dtype == "bfloat16") & ((d.kernel_source == kernel) if kernel else True)]
    d = d.assign(flops=2.0 * d.m * d.n * d.k, narrow=d[["m", "n", "k"]].min(axis=1))
    d = d.assign(rate=d.flops / (d.latency * 1e-3))
    size = [2.0**28, 2.0**30, 2.0**32, 2.0**34, 2.0**36, 2.0**38, 2.0**40, 2.0**42]
    width = [32, 64, 128, 256, 512, 1024, 2048, 4096]
    top = SUSTAINED_DENSE.get(name, dev["mamf"] or dev["peak"])
    cap, how = [top] * len(size), f"; capped at {num(top / 1e12)} TFLOP/s ({dev['sustained']})"
    if name in ("b200", "gb200"):
        ops = simumax_dense(f"{simumax}/b200_bf16_ceperm.json")
        scale = dev["mamf"] / DEVICES["b200"]["mamf"]
        def sustained(s, layouts):
            near = ops[(abs(np.log2(ops.flops / s)) <= 1.0) & ops.what.isin(layouts)]
            return near.rate.median() * scale if len(near) >= 5 else np.inf
        cap = [sustained(s, ["TN", "NN"]) for s in size]
        how = f"; capped by size at the median of {SIMUMAX}, B200, in training software" + ("" if name == "b200" else " times 1822/1745 (MAMF)")
    rows = gemm_grid(d, size, width, cap)
    inside = d[(d.flops >= size[0]) & (d.flops <= size[-1]) & (d.narrow >= 32)]
    fit = interpolate(size, width, rows, inside.flops.to_numpy(), inside.narrow.to_numpy().astype(float))
    src = f"{AIC} gemm/{version} bf16, median by (FLOPs, smallest dimension) of {len(inside)} shapes{how}"
    text = lambda s: f"{s / 1e9:.4g} GFLOP" if s < 1e12 else f"{s / 1e12:.4g} TFLOP"
    forward = Curve(size, width, rows, relative_spread(inside.rate.to_numpy() / fit), src, size_text=text)
    return forward


def rising(row):
    """More rows never lower the rate of a grouped GEMM; a hole takes the rate before it."""
    return [float(np.nanmax(row[: j + 1])) for j in range(len(row))]


def fused_moe_rates(dev, root):
    """Grouped-GEMM rates by rows and width, derived from fused-MoE times."""
    version, distribution = dev["moe"]
    d = pd.read_parquet(f"{root}/data/{dev['dir']}/moe/{version}/moe_perf.parquet")
    d = d[(d.moe_dtype == "bfloat16") & (d.distribution == distribution)].copy()
    if distribution != "balanced":
        d = d[d.moe_ep_size == 1]
    local = d.num_experts / d.moe_ep_size
    pairs = d.num_tokens * d.topk / d.moe_ep_size
    f = d.inter_size / d.moe_tp_size
    gates = np.where(d.kernel_source.str.contains("nongated"), 2, 3)
    flops = 2.0 * gates * pairs * d.hidden_size * f
    other = 2.0 * (pairs * d.hidden_size * 2 + pairs * f * gates + pairs * d.hidden_size + d.num_tokens * d.hidden_size)
    seconds = d.latency * 1e-3 - other / (0.8 * dev["bw"])
    d = d.assign(rows=d.num_tokens * d.topk / d.num_experts, f=f, rate=flops / seconds, keep=seconds > 0.4e-3 * d.latency, local=local)
    return d[d.keep & (d.local >= 2) & (d.local <= 256) & (d.hidden_size >= 2048)]


def simumax_grouped(path, width, stages):
    """Rate of the two GEMMs of a gated expert of this width, by rows; the two matrices weigh 2 : 1 in FLOPs."""
    d = simumax_operators(path, "group_matmul")
    up = d[d.N == 2 * width].pivot_table(index="M", columns="what", values="rate")
    down = d[d.K == width].pivot_table(index="M", columns="what", values="rate")
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
    bands = [(128, 128, 128, 0), (256, 256, 256, 0), (512, 512, 512, 0), (768, 704, 768, 1), (1536, 1536, 1856, 1), (2048, 2048, 3072, 1), (14336, 14336, 16384, 1)]
    top = SUSTAINED_GROUPED.get(name, dev["mamf"] or dev["peak"])
    width, rows = [], []
    for w, low, high, native in bands:
        cells = [d[(d.f >= low) & (d.f <= high) & (abs(np.log2(d.rows / s)) <= 0.5) & ((d.moe_tp_size == 1) if native else True)] for s in size]
        row = [cell.rate.quantile(0.75) if len(cell) >= 4 else np.nan for cell in cells]
        if np.isnan(row).sum() >= 3:
            continue
        row = rising(row)  # beyond the measured rows of this width: the last rate is held
        width.append(w)
        rows.append(row)
    src = (f"derived from {AIC} moe/{dev['moe'][0]} bf16: fused-MoE time less permute, activation and finalize bytes at 80 % of datasheet bandwidth, "
           "upper quartile by (rows, width); mostly held beyond 1024 rows")
    back_rows, back_src = None, ""
    table_file = {"b200": "b200_bf16_ceperm.json", "gb200": "b200_bf16_ceperm.json", "a100": "a100_pcie.json"}.get(name)
    if table_file:
        path, reference = f"{simumax}/{table_file}", rows[width.index(1536)] if 1536 in width else rows[0]
        if name == "gb200":
            reference = [r * DEVICES["b200"]["mamf"] / dev["mamf"] for r in reference]
        forward = training_ratio(path, reference, ["fwd"], size)
        backward = training_ratio(path, reference, ["bwd_grad_act", "bwd_grad_w"], size)
        machine = {"a100": "A100 PCIe"}.get(name, "B200")
        limit = max(simumax_grouped(path, 1536, ["fwd"])) * (dev["mamf"] / DEVICES["b200"]["mamf"] if name == "gb200" else 1)
        back_rows = [rising([min(r * q, limit) for r, q in zip(row, backward)]) for row in rows]
        rows = [rising([min(r * q, limit) for r, q in zip(row, forward)]) for row in rows]
        src += f"; by rows scaled to {SIMUMAX}, {machine}, width 1536 (training software), at most {num(limit / 1e12)} TFLOP/s"
        back_src = "as forward, scaled to its input and weight gradients"
        inside = None
    else:
        rows = [time_monotone(size, [min(r, top) for r in row]) for row in rows]
        inside = d[(d.rows >= size[0]) & (d.rows <= size[-1]) & (d.f >= width[0]) & (d.f <= width[-1]) & (d.moe_tp_size == 1)]
        src += f"; capped at {num(top / 1e12)} TFLOP/s" + (" (TransformerEngine PR 2045, GroupedLinear on H100)" if name in SUSTAINED_GROUPED else "")
        if name in SUSTAINED_GROUPED:
            back_rows = [[r * GROUPED_BACKWARD_RATIO for r in row] for row in rows]
            back_src = f"as forward, times {GROUPED_BACKWARD_RATIO}: TransformerEngine on H100, SonicMoE figure 14 (arXiv 2512.14080)"
    residual = 0.3 if inside is None else relative_spread(inside.rate.to_numpy() / interpolate(size, width, rows, inside.rows.to_numpy(), inside.f.to_numpy()))
    back = Curve(size, width, back_rows, residual, back_src) if back_rows else None
    return Curve(size, width, rows, residual, src), back


def attention(dev, root):
    d = pd.read_parquet(f"{root}/data/{dev['dir']}/attention/{dev['att']}/context_attention_perf.parquet")
    d = d[(d.attn_dtype == "bfloat16") & (d.kv_cache_dtype == "bfloat16")]
    if "window_size" in d:
        d = d[d.window_size == 0]
    d = d[(d.batch_size * d.num_heads * d.isl >= 131072) & (d.num_heads >= 8)]
    r = 2.0 * d.batch_size * d.num_heads * d.head_dim * d.isl.astype(float) ** 2 / (d.latency * 1e-3)
    width = [w for w in (64, 128, 256) if (d.head_dim == w).any()]
    rows = [[r[(d.isl == s) & (d.head_dim == w)].median() for s in SEQ] for w in width]
    inside = d.isl.isin(SEQ) & d.head_dim.isin(width)
    fit = interpolate(SEQ, width, rows, d.isl[inside].to_numpy().astype(float), d.head_dim[inside].to_numpy().astype(float))
    src = f"{AIC}: attention/{dev['att']} context, bf16; causal FLOPs (half of 4 S^2 d per head); includes the KV-cache write"
    forward = Curve(SEQ, width, rows, relative_spread(r[inside].to_numpy() / fit), src)
    back_rows = [[a * q for a, q in zip(row, FA3_BACKWARD_RATIO)] for row in rows]
    back = Curve(SEQ, width, back_rows, 0.2, "derived: forward times the backward/forward ratio of FlashAttention-3 (arXiv 2407.08608, H100, head width 128)")
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
    scale = dev["bw"] / DEVICES["h200"]["bw"] if not paper else min(1.0, dev["mamf"] / DEVICES["h200"]["mamf"])
    size = [128, 512, 1024, 2048, 8192]
    curves = []
    for k in (0, 1):
        inf = {w: points[w][k] * 1e12 * (points[w][2] + 64) / points[w][2] * scale for w in points}
        inf[64] = inf[128] / (2 if not paper else 1.25)
        rows = [[inf[w] * m / (m + 64) for m in size] for w in sorted(inf)]
        here = OWN if name == "h200" else f"by analogy: H200 ({OWN}) times the ratio of memory bandwidths (memory bound)"
        curves.append(Curve(size, sorted(inf), rows, 0.15 if name == "h200" else 0.35,
                            f"{here}; {what}; d_h 64 and the dependence on rows are derived (tiles of 128 rows)" if k == 0 else "as forward"))
    return curves


def router(dev, name, gemm, paper):
    """By input width: narrow rows are the fused HP router, wide ones a bf16 GEMM and a top-k over fp32 scores."""
    size = [1024, 4096, 32768, 262144]
    fp32 = dev["fp32"] / 67
    narrow = {64: 7.5e12, 128: 13.9e12, 256: 8.2e12}
    narrow_back = {64: 7.4e12, 128: 9.6e12, 256: 8.3e12}
    experts, rows, back = 128, [], []
    width = [64, 128, 256, 1024, 4096, 8192]
    for w in width:
        row, brow = [], []
        for s in size:
            flops = 2.0 * s * w * experts
            if w <= 256:
                row.append(flops / (flops / (narrow[w] * fp32) + 5e-6))
                brow.append(2 * flops / (2 * flops / (narrow_back[w] * fp32) + 10e-6))
            else:
                g = float(interpolate(gemm.size, gemm.width, gemm.rows, np.array([flops]), np.array([float(experts)]))[0])
                t = flops / g + 20.0 * s * experts / (0.8 * dev["bw"]) + 15e-6
                row.append(flops / t)
                brow.append(2 * flops / (2 * flops / g + 20.0 * s * experts / (0.8 * dev["bw"]) + 15e-6))
        rows.append(row)
        back.append(brow)
    text = ("width: input width of the router. d_h <= 256: fused fp32 router of arXiv 2602.04870 "
            f"({OWN}: 13.9 TFLOP/s at 128, 7.5 at 64; 256: einsum and top-k, 8.2), scaled by fp32 peak; "
            "wider: derived, bf16 GEMM to 128 scores, 20 B per score of softmax/top-k traffic, 15 us of small kernels")
    return (Curve(size, width, rows, 0.3, text), Curve(size, width, back, 0.4, "per 2 x forward FLOPs; sources and derivation as forward"))


def byte_curves(dev, name):
    measured = name in ("b200", "gb200")
    size = [MIB * s for s in (0.25, 1, 4, 16, 64, 256, 65536)]
    def curve(fraction, ramp, residual, source):
        return Curve(size, [1], [[s / (s / (fraction * dev["bw"]) + ramp) for s in size]], residual, source, size_text=nbytes, rate_text=byte_rate)
    copy = "device copy on H200 reads+writes 4.29 TB/s, 89 % of datasheet (" + OWN + ")"
    return {
        "gather": curve(0.50, 4e-6, 0.2, f"{SIMUMAX}, B200: permute at 50 % of datasheet bandwidth; 4 us ramp") if measured else curve(0.75, 4e-6, 0.25, f"derived: 75 % of datasheet bandwidth for rows of 0.25 KiB and more, 4 us ramp; {copy}; aiconfigurator assumes 80 % and 3 us"),
        "streaming": curve(0.666, 3e-6, 0.2, f"{SIMUMAX}, B200: elementwise operators at 66.6 % of datasheet bandwidth; 3 us ramp") if measured else curve(0.85, 3e-6, 0.12, "derived: 85 % of datasheet bandwidth, 3 us ramp; copy as under gather"),
        "optimizer": curve(0.80, 3e-6, 0.15, "derived: 80 % of datasheet bandwidth; PyTorch fused AdamW, pytorch/pytorch PR 119842 (2024-02): 547 M bf16 parameters in 3.56 ms on H100 = 2.15 TB/s"),
    }


# Fitted sizes in MiB of the whole buffer: powers of four, and powers of two between them where the chord misses the
# measurement by more than 5 %, because NCCL changes protocol there. All other sizes are held out for `headway validate`.
POWERS_OF_FOUR = [2.0**-4, 2.0**-2, 1, 4, 16, 64, 256]
LINK = {"a100": "300 GB/s", "h100": "450 GB/s", "h200": "450 GB/s", "b200": "900 GB/s", "gb200": "900 GB/s", "l40s": "32 GB/s"}


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
        bytes=lambda x: np.where(x.nccl_dtype == "half", 2.0, 1.0) * x.message_size, us=lambda x: x.latency * 1e3)
    return d[["nccl_dtype", "bytes", "us"]].sort_values("bytes")


def nccl_curve(dev, name, root, op, collective, ranks, path):
    d = nccl_rows(dev, root, op, ranks)
    half = d[d.nccl_dtype == "half"]
    factor = {"all_to_all": 1.0, "all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}[collective] * (ranks - 1) / ranks
    us_by_mib = dict(zip(half.bytes / MIB, half.us))
    sizes = fitted_sizes(us_by_mib) if collective == "all_to_all" else POWERS_OF_FOUR + [512]
    picked = half[half.bytes.isin([s * MIB for s in sizes])]
    times = np.maximum.accumulate(picked.us.to_numpy())
    xs = picked.bytes.to_numpy()
    rest = d[(d.bytes >= xs[0]) & (d.bytes <= xs[-1]) & ~((d.nccl_dtype == "half") & d.bytes.isin(xs))]
    residual = float(np.sqrt(np.mean((rest.us.to_numpy() / np.interp(rest.bytes, xs, times) - 1) ** 2)))
    return (f"  - {{collective: {collective}, path: {path}, num_ranks: {ranks}, link: {LINK[name]}, "
            f"bytes: [{', '.join(nbytes(x * factor) for x in xs)}], "
            f"time: [{', '.join(f'{t:.4g} us' for t in times)}], residual: {max(residual, 0.01) * 100:.2g} %, "
            f"source: \"{AIC} nccl-tests {op}, half; residual: sizes and int8 run not fitted\"}}")


# NVIDIA/nccl issue 1244 (2024-04): 2 nodes of 8 H20, NVLink 450 GB/s and one NDR NIC per GPU, all_reduce, us by MiB.
H20_ALL_REDUCE = {2.0**-10: 46.7, 1: 121.8, 4: 127.6, 8: 146.5, 16: 203.0, 32: 298.5, 64: 467.9, 128: 1108.0, 256: 2055.4, 512: 3218.6}


def network_line(collective, path, nic, sizes, times, residual, source):
    return (f"  - {{collective: {collective}, path: {path}, num_ranks: 16, link: {num(nic / 1e9)} GB/s, bytes: [{', '.join(nbytes(s) for s in sizes)}], "
            f"time: [{', '.join(f'{t * 1e6:.4g} us' for t in times)}], residual: {residual} %, source: \"{source}\"}}")


def network_curves(dev):
    """all_to_all: per NIC. Reductions: two whole nodes, whose eight NICs one ring or tree uses together."""
    nic, wire = dev["nic"], dev["nic"] * 0.92
    lines = [network_line("all_to_all", "nic", nic, [64 * 1024, 65536 * MIB], [35e-6 + s / wire for s in (64 * 1024, 65536 * MIB)], 25,
                          f"derived: {num(wire / 1e9)} GB/s per NIC, bytes that leave the node; nccl-tests issues 267, 290: 46-49 of 50 GB/s; "
                          "DeepEP on 2-8 H100 nodes 33-46 GB/s by the same count; floor: DeepEP notify 30-60 us")]
    if nic == 50e9:
        sizes = [s * MIB * 2 * 15 / 16 for s in H20_ALL_REDUCE]
        times = [t * 1e-6 for t in H20_ALL_REDUCE.values()]
        lines.append(network_line("all_reduce", "nic", nic, sizes, times, 20, "by analogy: nccl issue 1244 (2024-04), 2 nodes of 8 H20, same NVLink and NICs, NCCL tree over NVLS"))
        start = 35e-6
    else:
        start = 46e-6
        sizes = [64 * 1024, 65536 * MIB]
        lines.append(network_line("all_reduce", "nic", nic, sizes, [start + s / (8 * wire) for s in sizes], 30, f"derived: eight NICs at {num(wire / 1e9)} GB/s used together (ring over whole nodes)"))
    sizes = [64 * 1024, 65536 * MIB]
    for collective in ("all_gather", "reduce_scatter"):
        lines.append(network_line(collective, "nic", nic, sizes, [35e-6 + s / (8 * wire) for s in sizes], 30, f"derived: eight NICs at {num(wire / 1e9)} GB/s used together (ring over whole nodes)"))
    return lines


def bench_points(path, op, impl):
    """Rows of headway-bench's CSV: cold median of the fastest matching implementation for each shape."""
    d = pd.read_csv(path, comment="#")
    d = d[(d.op == op) & d.impl.str.startswith(impl) & (d.l2 == "cold") & (pd.to_numeric(d.median_us, errors="coerce") > 0)]
    numbers = ["num_heads", "head_dim", "num_experts", "expert_dim", "num_tokens", "top_k", "median_us", "flops", "bytes"]
    d = d.assign(**{c: pd.to_numeric(d[c]) for c in numbers}).sort_values("median_us").drop_duplicates("shape")
    rows = d.num_tokens * d.top_k / d.num_experts
    return d.assign(rows_per_expert=rows, seconds=d.median_us * 1e-6)


def own_kernels(csv, public):
    """Curves of headway's kernels on one H200; the public curves lend the dependence on rows and what was not measured."""
    here = "headway's own kernels on one H200 (docs/kernels_h200.csv, headway-bench, cold L2)"
    forward, backward = bench_points(csv, "experts_forward", "hopper"), bench_points(csv, "experts_backward", "hopper")
    size = [128, 512, 1024, 2048, 8192]
    fused = []
    for d, factor in ((forward, 1.0), (backward, 2.0)):
        useful = factor * 4.0 * d.num_heads * d.num_tokens * d.top_k * d.head_dim * d.expert_dim / d.seconds
        inf = (useful * (d.rows_per_expert + 64) / d.rows_per_expert).groupby(d.head_dim).mean()
        fused.append(Curve(size, list(inf.index), [[r * m / (m + 64) for m in size] for r in inf], 0.08,
                           f"{here}; useful FLOPs, 1024 and 2048 rows; dependence on rows derived (tiles of 128 rows)" if factor == 1 else "as forward; useful FLOPs are twice the forward's, what is recomputed does not count"))
    up, dgrad, wgrad = (bench_points(csv, op, "hopper") for op in ("grouped_forward", "grouped_dgrad", "grouped_wgrad_fp32"))
    shape = public["grouped_gemm"][0]
    grid, grouped = [64, 256, 1024, 4096], []
    for rate in ([up.flops / up.seconds], [dgrad.set_index("shape").flops / dgrad.set_index("shape").seconds, wgrad.set_index("shape").flops / wgrad.set_index("shape").seconds]):
        if len(rate) == 1:
            rate = [rate[0].set_axis(up["shape"])]
        mean = len(rate) / sum(1.0 / r for r in rate)
        order = up.sort_values("expert_dim")
        rows = []
        for _, p in order.iterrows():
            at = lambda m: interpolate(shape.size, shape.width, shape.rows, np.array([float(m)]), np.array([float(p.expert_dim)]))[0]
            rows.append(rising([mean[p["shape"]] * min(1.0, at(m) / at(p.rows_per_expert)) for m in grid]))
        width = [int(w) for w in order.expert_dim]
        for w, row in zip(shape.width, shape.rows):  # widths that were not measured: the public curve
            if w < min(order.expert_dim) or w > max(order.expert_dim):
                width.append(w)
                rows.append([float(np.interp(np.log(m), np.log(shape.size), row)) for m in grid])
        rows = [row for _, row in sorted(zip(width, rows))]
        text = f"{here}: grouped GEMM, widths 512 to 1408 at 2048 or 4096 rows; dependence on rows and other widths as h200_public" if len(rate) == 1 else "as forward; input and weight gradients (fp32 accumulation)"
        grouped.append(Curve(grid, sorted(width), rows, 0.1, text))
    def routed(op, factor, fallback):
        d = bench_points(csv, op, "fused" if factor == 1 else "expert_rows")
        tokens = d.num_heads * d.num_tokens
        rate = (factor * 2.0 * tokens * d.head_dim * d.num_experts / d.seconds).groupby(d.head_dim).mean()
        ramp = 5e-6 * factor
        rows = [[1.0 / (1.0 / r + ramp / (factor * 2.0 * n * w * 128)) for n in fallback.size] for w, r in rate.items()]
        wide = [(w, row) for w, row in zip(fallback.width, fallback.rows) if w > max(rate.index)]
        return Curve(fallback.size, [int(w) for w in rate.index] + [w for w, _ in wide], rows + [row for _, row in wide], 0.15,
                     f"{here} at d_h 64, 128, 256; wider: as h200_public" if factor == 1 else "as forward; per 2 x forward FLOPs")
    combine, adamw = bench_points(csv, "combine_forward", "gather"), bench_points(csv, "adamw_fp32_grad", "fused")
    copy = float(pd.read_csv(csv, comment="#").copy_gbs.median()) * 1e9
    bytes_at = [MIB * m for m in (0.25, 1, 4, 16, 64, 256, 65536)]
    def moved(d, ramp, text):
        top = (d.bytes / (d.seconds - ramp)).median() if d is not None else copy
        return Curve(bytes_at, [1], [[b / (b / top + ramp) for b in bytes_at]], 0.1, text, size_text=nbytes, rate_text=byte_rate)
    return {"grouped_gemm": tuple(grouped), "fused_expert": tuple(fused),
            "router": (routed("router_forward", 1, public["router"][0]), routed("router_backward", 2, public["router"][1])),
            "gather": (moved(combine, 4e-6, f"{here}: combine; 4 us ramp assumed"), None),
            "streaming": (moved(None, 3e-6, f"{here}: device copy {num(copy / 1e9)} GB/s; 3 us ramp assumed"), None),
            "optimizer": (moved(adamw, 3e-6, f"{here}: AdamW with fp32 states; 3 us ramp assumed"), None)}


def profile(name, root, simumax, paper=False, own=None):
    dev = DEVICES[name]
    gemm = dense_gemm(name, dev, root, simumax)
    att, att_back = attention(dev, root)
    kernels = {"dense_gemm": (gemm, None), "grouped_gemm": grouped_gemm(name, dev, root, simumax),
               "attention": (att, att_back), "router": router(dev, name, gemm, paper)}
    if name not in ("l40s",):
        kernels["fused_expert"] = fused_expert(dev, name, paper)
    for kind, curve in byte_curves(dev, name).items():
        kernels[kind] = (curve, None)
    if own:
        kernels.update(own_kernels(own, kernels))
    experts = "headway's own fused kernels" if own else "the FlexAttention experts of arXiv 2602.04870" if paper else "torch._grouped_mm experts"
    kernel_note = "" if name == "l40s" else f" HP experts are priced as {experts}."
    own_note = " and headway's own kernels on one H200" if own else ""
    suffix = "headway_kernels" if own else ("paper_kernels" if paper else "public")
    title = f"{dev['device']}: public measurements" + {"public": "", "paper_kernels": "; HP experts as the authors' FlexAttention kernels",
                                                       "headway_kernels": "; experts, routers and row moves as headway's own kernels"}[suffix]
    out = ["# yaml-language-server: $schema=../profile.schema.json", f"# {title}", f"name: {name}_{suffix}",
           "provenance:",
           f"  device: {dev['device']}",
           "  kind: public",
           "  date: 2026-11-23",
           f"  nccl: \"{dev['nccl']}\"",
           "  command: scripts/public_profiles.py SYSTEMS_DIR SIMUMAX_DIR OUT_DIR" + (" KERNELS_CSV" if own else ""),
           f"  note: \"Built from cited public measurements{own_note}, not measured on your machine.{kernel_note} Calibrate before you rely on it.\"",
           "kernels:"]
    for kind in ("dense_gemm", "grouped_gemm", "fused_expert", "attention", "router", "gather", "streaming", "optimizer"):
        if kind not in kernels:
            continue
        out.append(f"  {kind}:")
        for direction, curve in zip(("forward", "backward"), kernels[kind]):
            if curve is not None:
                out.append(f"    {direction}:")
                out += curve.lines(6)
    path = "pcie" if name == "l40s" else "nvlink"
    out.append("communication:")
    for ranks in dev["ranks"]:
        out.append(nccl_curve(dev, name, root, "alltoall", "all_to_all", ranks, path))
    for op in ("all_reduce", "all_gather", "reduce_scatter"):
        out.append(nccl_curve(dev, name, root, op, op, dev["ranks"][-1], path))
    if dev["nic"]:
        out += network_curves(dev)
    floor = nccl_rows(dev, root, "alltoall", dev["ranks"][-1])
    floor_us = float(floor[floor.bytes <= 4096].us.median())
    slowdown = dev["sms"] / (dev["sms"] - 20)
    out.append("overheads:")
    # DeepEP's notify is a count exchange with the host's wait: mean of T = 1024 and 4096, 2 nodes, 24 SMs.
    sync_us = (52.2 + 56.1) / 2 - floor_us
    launch_us = (3.0 * 30.0) ** 0.5
    out += [f"  launch: {launch_us:.2g} us", f"  host_sync: {sync_us:.2g} us", f"  count_exchange: {floor_us:.3g} us", f"  overlap_slowdown: {slowdown:.3f}", "  residual: 60 %",
            f"  source: \"count_exchange: median nccl-tests alltoall of 4 KiB and less, {dev['ranks'][-1]} GPUs ({AIC}); host_sync: DeepEP notify on 2 H100 nodes (54 us, ibid. comm/sglang/0.5.6.post2) "
            f"less that; launch: geometric mean of 3 us an operator under CUDA graphs ({AIC}) and 30 us in training software ({SIMUMAX}); overlap_slowdown: {dev['sms']} SMs of which DeepEP takes 20\""]
    return "\n".join(out) + "\n"


def main():
    root, simumax, target = sys.argv[1:4]
    own = sys.argv[4] if len(sys.argv) > 4 else None
    for name in DEVICES:
        text = profile(name, root, simumax)
        with open(f"{target}/{name}_public.yaml", "w") as f:
            f.write(text)
        print(name, len(text))
    text = profile("h200", root, simumax, paper=True)
    with open(f"{target}/h200_paper_kernels.yaml", "w") as f:
        f.write(text)
    if own:
        with open(f"{target}/h200_headway_kernels.yaml", "w") as f:
            f.write(profile("h200", root, simumax, own=own))


if __name__ == "__main__":
    main()
