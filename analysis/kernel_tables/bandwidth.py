"""Kernels that move bytes, dense products around HP and the optimizer."""

from __future__ import annotations

from kernel_tables.published import DENSE_SHAPES, OPTIMIZER_SHAPES, ROW_SHAPES
from kernel_tables.run import Case, Run, percent, table

# What the copy of the run bounds, by the shapes it is timed at.
MOVERS = {
    "permute (`ep_permute`, `_cast`, `_weighted`, `_backward`)": [
        "ep_permute",
        "ep_permute_cast",
        "ep_permute_weighted",
        "ep_permute_backward",
    ],
    "unpermute, its backward, regroup": ["ep_unpermute", "ep_unpermute_backward", "ep_regroup"],
    "combine forward": ["combine_forward"],
    "combine backward": ["combine_backward"],
    "grouping": ["grouping"],
    "RMS norm forward": ["rms_norm_forward"],
    "RMS norm backward": ["rms_norm_backward"],
    "AdamW (four kinds)": [
        "adamw_fp32_grad",
        "adamw_bf16_grad",
        "adamw8_fp32_grad",
        "adamw8_bf16_grad",
    ],
}


def cases_of(run: Run, ops: list[str]) -> list[Case]:
    return [c for op in ops for c in run.of_op(op) if c.timed and c.bytes > 0]


def copy_shares(run: Run) -> str:
    rows = []
    for name, ops in MOVERS.items():
        by_shape: dict[str, list[float]] = {}
        for case in cases_of(run, ops):
            by_shape.setdefault(case.shape, []).append(case.gbs / run.copy_gbs)
        cells = [
            f"{shape} {percent(min(shares))}"
            + (f" to {percent(max(shares))}" if len(shares) > 1 else "")
            for shape, shares in by_shape.items()
        ]
        rows.append([name, ", ".join(cells)])
    return table(["kernel", "share of the copy bandwidth of the run"], rows)


def row_movers(run: Run) -> str:
    ops = {
        "permute": "ep_permute",
        "from fp32": "ep_permute_cast",
        "weighted": "ep_permute_weighted",
        "unpermute": "ep_unpermute",
        "its backward": "ep_unpermute_backward",
        "permute backward": "ep_permute_backward",
        "regroup (map and rows)": "ep_regroup",
    }
    rows = []
    for shape, extent in ROW_SHAPES.items():
        cases = [run.case(op, "vectorised", shape) for op in ops.values()]
        rows.append([f"{shape}: {extent}", *(f"{c.median_us:.0f} us, {c.gbs:.0f}" for c in cases)])
    return table(["T, k, d", *ops], rows)


def row_maps(run: Run) -> str:
    rows = [
        [
            name,
            *(f"{run.case(op, 'counting-sort', shape).median_us:.1f} us" for shape in ROW_SHAPES),
        ]
        for name, op in {
            "stable sort of the choices by expert": "ep_expert_map",
            "whole rank-dedup map, 8 ranks": "ep_dedup_map",
        }.items()
    ]
    return table(["map", *ROW_SHAPES], rows)


def head_products(run: Run) -> str:
    ops = {
        "project": "head_project",
        "its dgrad": "head_project_dgrad",
        "its wgrad (fp32 out)": "head_project_wgrad",
        "merge": "head_merge",
        "dgrad": "head_merge_dgrad",
        "wgrad": "head_merge_wgrad",
    }
    rows = []
    for shape, extent in DENSE_SHAPES.items():
        for impl, name, label in (
            ("cublaslt", "cuBLASLt", f"{shape}: {extent}"),
            ("hopper", "**ours**", ""),
        ):
            cases = [run.case(op, impl, shape) for op in ops.values()]
            rows.append([label, name, *(f"{c.median_us:.0f}, {c.tflops:.0f}" for c in cases)])
    return table(["H, d_h, d, T", "", *ops], rows)


def optimizer(run: Run) -> str:
    ops = {
        "fp32 states, fp32 grad": "adamw_fp32_grad",
        "fp32 states, bf16 grad": "adamw_bf16_grad",
        "8-bit states, fp32 grad": "adamw8_fp32_grad",
        "8-bit states, bf16 grad": "adamw8_bf16_grad",
    }

    def cell(case: Case) -> str:
        low_high = f"{case.p10_us:.0f}-{case.p90_us:.0f}"
        share = percent(case.gbs / run.copy_gbs)
        return f"{case.median_us:.0f} us ({low_high}), {case.gbs:.0f} GB/s, {share}"

    rows = [
        [f"{shape}: {size}", *(cell(run.case(op, "fused", shape)) for op in ops.values())]
        for shape, size in OPTIMIZER_SHAPES.items()
    ]
    return table(["parameters", *ops], rows)
