"""Curves of headway's own kernels from headway-bench's CSV."""

import numpy as np
import pandas as pd
from curve import MIB, Curve, byte_rate, interpolate, nbytes, num, rising


def bench_points(path, op, impl):
    """Rows of headway-bench's CSV: cold median of the fastest matching implementation for each shape."""
    d = pd.read_csv(path, comment="#")
    d = d[
        (d.op == op)
        & d.impl.str.startswith(impl)
        & (d.l2 == "cold")
        & (pd.to_numeric(d.median_us, errors="coerce") > 0)
    ]
    numbers = [
        "num_heads",
        "head_dim",
        "num_experts",
        "expert_dim",
        "num_tokens",
        "top_k",
        "median_us",
        "flops",
        "bytes",
    ]
    d = (
        d.assign(**{c: pd.to_numeric(d[c]) for c in numbers})
        .sort_values("median_us")
        .drop_duplicates("shape")
    )
    rows = d.num_tokens * d.top_k / d.num_experts
    return d.assign(rows_per_expert=rows, seconds=d.median_us * 1e-6)


def own_kernels(csv, public):
    """Curves of headway's kernels on one H200; the public curves lend the dependence on rows and what was not measured."""
    here = "headway's own kernels on one H200 (headway-bench, cold L2)"
    forward, backward = (
        bench_points(csv, "experts_forward", "hopper"),
        bench_points(csv, "experts_backward", "hopper"),
    )
    size = [128, 512, 1024, 2048, 8192]
    fused = []
    for d, factor in ((forward, 1.0), (backward, 2.0)):
        useful = (
            factor
            * 4.0
            * d.num_heads
            * d.num_tokens
            * d.top_k
            * d.head_dim
            * d.expert_dim
            / d.seconds
        )
        inf = (useful * (d.rows_per_expert + 64) / d.rows_per_expert).groupby(d.head_dim).mean()
        fused.append(
            Curve(
                size,
                list(inf.index),
                [[r * m / (m + 64) for m in size] for r in inf],
                0.08,
                (
                    f"{here}; useful FLOPs, 1024 and 2048 rows; dependence on rows derived (tiles of 128 rows)"
                    if factor == 1
                    else "as forward; useful FLOPs are twice the forward's, what is recomputed does not count"
                ),
            )
        )
    up, dgrad, wgrad = (
        bench_points(csv, op, "hopper")
        for op in ("grouped_forward", "grouped_dgrad", "grouped_wgrad_fp32")
    )
    shape = public["grouped_gemm"][0]
    grid, grouped = [64, 256, 1024, 4096], []
    for rate in (
        [up.flops / up.seconds],
        [
            dgrad.set_index("shape").flops / dgrad.set_index("shape").seconds,
            wgrad.set_index("shape").flops / wgrad.set_index("shape").seconds,
        ],
    ):
        if len(rate) == 1:
            rate = [rate[0].set_axis(up["shape"])]
        mean = len(rate) / sum(1.0 / r for r in rate)
        order = up.sort_values("expert_dim")
        rows = []
        for _, p in order.iterrows():
            widths = np.full(len(grid) + 1, float(p.expert_dim))
            at = interpolate(
                shape.size,
                shape.width,
                shape.rows,
                np.array([*grid, p.rows_per_expert], float),
                widths,
            )
            rows.append(rising([mean[p["shape"]] * min(1.0, r / at[-1]) for r in at[:-1]]))
        width = [int(w) for w in order.expert_dim]
        for w, row in zip(
            shape.width, shape.rows
        ):  # widths that were not measured: the public curve
            if w < min(order.expert_dim) or w > max(order.expert_dim):
                width.append(w)
                rows.append([float(np.interp(np.log(m), np.log(shape.size), row)) for m in grid])
        rows = [row for _, row in sorted(zip(width, rows))]
        text = (
            f"{here}: grouped GEMM, widths 512 to 1408 at 2048 or 4096 rows; dependence on rows and other widths as h200_public"
            if len(rate) == 1
            else "as forward; input and weight gradients (fp32 accumulation)"
        )
        grouped.append(Curve(grid, sorted(width), rows, 0.1, text))

    def routed(op, factor, fallback):
        d = bench_points(csv, op, "fused" if factor == 1 else "expert_rows")
        tokens = d.num_heads * d.num_tokens
        rate = (
            (factor * 2.0 * tokens * d.head_dim * d.num_experts / d.seconds)
            .groupby(d.head_dim)
            .mean()
        )
        ramp = 5e-6 * factor
        rows = [
            [1.0 / (1.0 / r + ramp / (factor * 2.0 * n * w * 128)) for n in fallback.size]
            for w, r in rate.items()
        ]
        wide = [(w, row) for w, row in zip(fallback.width, fallback.rows) if w > max(rate.index)]
        return Curve(
            fallback.size,
            [int(w) for w in rate.index] + [w for w, _ in wide],
            rows + [row for _, row in wide],
            0.15,
            (
                f"{here} at d_h 64, 128, 256; wider: as h200_public"
                if factor == 1
                else "as forward; per 2 x forward FLOPs"
            ),
        )

    movers = (
        ("combine_forward", "gather"),
        ("ep_permute", "vectorised"),
        ("ep_unpermute", "vectorised"),
    )
    moves = pd.concat([bench_points(csv, op, impl) for op, impl in movers])
    adamw = bench_points(csv, "adamw_fp32_grad", "fused")
    copy = float(pd.read_csv(csv, comment="#").copy_gbs.median()) * 1e9
    bytes_at = [MIB * m for m in (0.25, 1, 4, 16, 64, 256, 65536)]

    def moved(d, ramp, text):
        top = (d.bytes / (d.seconds - ramp)).median() if d is not None else copy
        return Curve(
            bytes_at,
            [1],
            [[b / (b / top + ramp) for b in bytes_at]],
            0.1,
            text,
            size_text=nbytes,
            rate_text=byte_rate,
        )

    return {
        "grouped_gemm": tuple(grouped),
        "fused_expert": tuple(fused),
        "router": (
            routed("router_forward", 1, public["router"][0]),
            routed("router_backward", 2, public["router"][1]),
        ),
        "gather": (
            moved(moves, 4e-6, f"{here}: combine, permute, unpermute; 4 us ramp assumed"),
            None,
        ),
        "streaming": (
            moved(None, 3e-6, f"{here}: device copy {num(copy / 1e9)} GB/s; 3 us ramp assumed"),
            None,
        ),
        "optimizer": (
            moved(adamw, 3e-6, f"{here}: AdamW with fp32 states; 3 us ramp assumed"),
            None,
        ),
    }
