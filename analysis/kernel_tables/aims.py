"""What the kernels were to reach, what the run shows, met or missed."""

from __future__ import annotations

import re

from kernel_tables.bandwidth import cases_of
from kernel_tables.experts import TARGETS
from kernel_tables.published import (
    RELEASED_LAYER_GIB,
    RELEASED_LAYER_STEP_MS,
    RELEASED_ROUTER_BACKWARD_MS,
    TORCH_EP_FORWARD,
    TORCH_HP_TFLOPS,
)
from kernel_tables.run import GIB, Run, table

ROUTER_FORWARD_MS = {"B": 0.20, "C": 0.35, "D": 0.40}


def line(what: str, aim: str, reached: str, met: bool) -> list[str]:
    return [what, aim, reached, "met" if met else "**missed**"]


def numbers_in_details(run: Run, ops: str, pattern: str) -> list[float]:
    found = [re.search(pattern, case.detail) for case in run.cases if case.op.startswith(ops)]
    return [float(match[1]) for match in found if match]


def correctness(run: Run) -> list[list[str]]:
    """Errors are those of the checks in the CSV: relative L2."""
    failed = sum(case.check != "ok" for case in run.cases)
    forward = numbers_in_details(run, "experts_forward", r"y to fp64 (\S+)")
    steps = ("experts_backward", "ep_experts_backward", "hp_layer_step", "ep_layer_step")
    gradients = [case.error for case in run.cases if case.op.startswith(steps)]
    sets = [
        re.search(r"(\d+) of (\d+) sets", run.case("router_forward", "fused", shape).detail)
        for shape in "ABCD"
    ]
    wrong, all_sets = (sum(int(found[i]) for found in sets) for i in (1, 2))
    errors = [
        ("experts forward, y to fp64 (small shapes)", 4e-3, max(forward)),
        ("gradients of experts and layers", 1e-2, max(gradients)),
    ]
    return [
        line("checks that fail", "none", f"{failed} of {len(run.cases)} cases", failed == 0),
        line("top-k sets other than fp64's, A-D", "none", f"{wrong} of {all_sets:,}", wrong == 0),
        *(line(what, f"at most {aim:.0e}", f"{got:.1e}", got <= aim) for what, aim, got in errors),
    ]


def router(run: Run) -> list[list[str]]:
    rows = []
    for shape, limit in ROUTER_FORWARD_MS.items():
        got = run.case("router_forward", "fused", shape).ms
        rows.append(
            line(
                f"router forward {shape}", f"at most {limit:.2f} ms", f"{got:.3f} ms", got <= limit
            )
        )
    for shape, released in RELEASED_ROUTER_BACKWARD_MS.items():
        got = run.case("router_backward", "expert_rows", shape).ms
        aim = f"at most half of {released} ms"
        rows.append(line(f"router backward {shape}", aim, f"{got:.3f} ms", got <= released / 2))
    return rows


def at_least(what: str, limit: float, got: float) -> list[str]:
    return line(what, f"at least {limit:.0f} TFLOP/s", f"{got:.1f}", got >= limit)


def experts(run: Run) -> list[list[str]]:
    rows = []
    for (op, shape), limit in TARGETS.items():
        got = run.case(op, "hopper", shape).tflops
        rows.append(at_least(f"{op.replace('_', ' ')} {shape}", limit, got))
    for op, by_shape in TORCH_HP_TFLOPS.items():
        for shape, limit in by_shape.items():
            got = run.case(op, "hopper", shape).tflops
            what = f"{op.replace('_', ' ')} {shape}, torch._grouped_mm"
            rows.append(at_least(what, limit, got))
    for shape, (_, limit) in TORCH_EP_FORWARD.items():
        got = run.case("ep_experts_forward", "hopper", shape).tflops
        rows.append(at_least(f"EP experts forward {shape}, torch._grouped_mm", limit, got))
    return rows


def layer(run: Run) -> list[list[str]]:
    rows = []
    for shape, released in RELEASED_LAYER_STEP_MS.items():
        step = run.case("hp_layer_step", "hopper", shape)
        ratio, memory = released / step.ms, step.memory / GIB
        rows.append(
            line(f"HP layer forward + backward {shape}", "5 x", f"{ratio:.1f} x", ratio >= 5)
        )
        limit = RELEASED_LAYER_GIB[shape]
        aim = f"less than {limit} GiB"
        rows.append(line(f"its memory {shape}", aim, f"{memory:.2f} GiB", memory < limit))
    return rows


def bandwidth(run: Run) -> list[list[str]]:
    kinds = {
        "permute": ["ep_permute", "ep_permute_cast", "ep_permute_weighted", "ep_permute_backward"],
        "unpermute and regroup": ["ep_unpermute", "ep_unpermute_backward", "ep_regroup"],
        "combine forward": ["combine_forward"],
        "combine backward": ["combine_backward"],
        "grouping": ["grouping"],
    }
    rows = []
    for name, ops in kinds.items():
        shares = [case.gbs / run.copy_gbs for case in cases_of(run, ops)]
        reached = f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"
        rows.append(line(name, "75 % of the copy", reached, min(shares) >= 0.75))
    return rows


def aims(run: Run) -> str:
    parts = (correctness, router, experts, layer, bandwidth)
    rows = [row for part in parts for row in part(run)]
    return table(["what", "aim", "reached", ""], rows)
