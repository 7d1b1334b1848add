"""Experts of both layers: fused HP experts, EP experts and single grouped products."""

from __future__ import annotations

from kernel_tables.published import (
    EP_SHAPES,
    RELEASED_EXPERTS_TFLOPS,
    RELEASED_EXPERTS_US,
    TORCH_EP_FORWARD,
)
from kernel_tables.run import Case, Run, percent, spread, table

TARGETS = {
    ("experts_forward", "B"): 350,
    ("experts_forward", "C"): 500,
    ("experts_backward", "B"): 250,
    ("experts_backward", "C"): 350,
}


def hp_experts(run: Run) -> str:
    rows = []
    for op in ("experts_forward", "experts_backward"):
        for shape in "ABCD":
            hopper, portable = (run.case(op, impl, shape) for impl in ("hopper", "portable"))
            rows.append(
                [
                    f"{op.removeprefix('experts_')} {shape}",
                    f"{hopper.median_us:.1f} ({spread(hopper)})",
                    f"{hopper.tflops:.0f}",
                    str(TARGETS.get((op, shape), "-")),
                    percent(hopper.of_roofline),
                    f"{portable.median_us:.1f}",
                    f"{portable.tflops:.0f}",
                    str(RELEASED_EXPERTS_US[op].get(shape, "-")),
                    str(RELEASED_EXPERTS_TFLOPS[op].get(shape, "-")),
                ]
            )
    ours = ["hopper us (p10-p90)", "TFLOP/s", "target", "roofline", "portable us", "TFLOP/s"]
    return table(["", *ours, "paper's FlexAttention us", "TFLOP/s"], rows)


def in_ms(case: Case) -> str:
    return f"{case.ms:.3f} ms, {case.tflops:.0f}"


def in_ms_with_spread(case: Case) -> str:
    low, high = case.p10_us / 1e3, case.p90_us / 1e3
    return f"**{case.ms:.3f} ms ({low:.3f}-{high:.3f}), {case.tflops:.0f}**"


def ep_experts(run: Run) -> str:
    rows = []
    for shape, extent in EP_SHAPES.items():
        torch = TORCH_EP_FORWARD.get(shape)
        rows.append(
            [
                f"{shape}: {extent}",
                f"{torch[0]} ms, {torch[1]}" if torch else "-",
                in_ms(run.case("ep_experts_forward", "cublas", shape)),
                in_ms_with_spread(run.case("ep_experts_forward", "hopper", shape)),
                in_ms(run.case("ep_experts_inference", "hopper", shape)),
                in_ms(run.case("ep_experts_backward", "cublas", shape)),
                in_ms_with_spread(run.case("ep_experts_backward", "hopper", shape)),
            ]
        )
    forward = ["torch fwd", "cublas fwd", "**ours fwd** (training: pre-activation stored)"]
    backward = ["ours fwd (inference)", "cublas bwd", "**ours bwd**"]
    return table(["experts, d, f, rows", *forward, *backward], rows)


PRODUCTS = {
    "forward": ("grouped_forward", ("cublas", "hopper-128x256", "hopper-256x128")),
    "forward, GELU (erf) and pre-activation stored": ("grouped_gelu_erf", ("hopper",)),
    "forward, SwiGLU and pre-activation stored": ("grouped_swiglu", ("hopper",)),
    "dgrad": ("grouped_dgrad", ("cublas", "hopper-128x256", "hopper-256x128")),
    "wgrad, fp32 out": ("grouped_wgrad_fp32", ("cublas", "hopper-128x256", "hopper-256x128")),
    "wgrad, bf16 out": ("grouped_wgrad_bf16", ("cublas", "hopper-128x256", "hopper-256x128")),
}


def grouped_products(run: Run) -> str:
    rows = []
    for name, (op, impls) in PRODUCTS.items():
        cells = {impl: "-" for impl in ("cublas", "hopper-128x256", "hopper-256x128")}
        for impl in impls:
            case = run.case(op, impl, "E1")
            column = "hopper-128x256" if impl == "hopper" else impl
            cells[column] = f"{case.median_us:.0f} us ({spread(case)}), {case.tflops:.0f}"
        rows.append([name, *cells.values()])
    return table(["one product, E1", "cublas", "128 x 256 tile", "256 x 128 tile"], rows)
