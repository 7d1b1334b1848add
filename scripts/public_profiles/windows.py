#!/usr/bin/env python3
"""Measured attention cores with a window against the rule of the model: the rate of a causal sequence of twice the
mean context, below the first size of the curve falling with it.

usage: scripts/public_profiles/windows.py SYSTEMS    (aiconfigurator's systems folder, as for scripts/public_profiles)
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from devices import DEVICES
from operators import SEQ


def with_rates(cores, context):
    """Rates of the larger half of the runs of each (width, sequence, window), in FLOP/s."""
    flops = 4.0 * cores.batch_size * cores.num_heads * cores.head_dim * cores.isl * context
    cores = cores.assign(rate=flops / (cores.latency * 1e-3), flops=flops)
    return cores[flops > 0.3 * flops.groupby([cores.head_dim, cores.isl]).transform("max")]


def judge(table):
    """(width, sequence, window, measured, by the rule, by the whole sequence) in FLOP/s."""
    cores = pd.read_parquet(table)
    cores = cores[(cores.attn_dtype == "bfloat16") & (cores.kv_cache_dtype == "bfloat16")]
    if "step" in cores:
        cores = cores[cores.step == 0]
    whole = cores[cores.window_size == 0]
    whole = with_rates(whole, whole.isl / 2).groupby(["head_dim", "isl"]).rate.median()
    cores = cores[(cores.window_size > 0) & (cores.window_size < cores.isl)]
    window = cores.window_size
    cores = with_rates(cores, window * (1 - window / (2 * cores.isl)))
    for (width, tokens, window), rate in (
        cores.groupby(["head_dim", "isl", "window_size"]).rate.median().items()
    ):
        if tokens < SEQ[0] or width not in whole.index.get_level_values(0):
            continue
        curve = whole[width].reindex(SEQ).dropna()
        size = 2 * window * (1 - window / (2 * tokens))
        at = [
            np.interp(s, curve.index, curve) * min(1.0, s / curve.index[0]) for s in (size, tokens)
        ]
        yield width, tokens, window, rate, *at


def main():
    root = Path(sys.argv[1])
    print("device, cores; error of the rule: median, worst; of the whole sequence's rate: median")
    for name, dev in DEVICES.items():
        table = (
            root / "data" / dev["dir"] / "attention" / dev["att"] / "context_attention_perf.parquet"
        )
        if not table.exists() or "window_size" not in pd.read_parquet(table).columns:
            continue
        rows = np.array([row[3:] for row in judge(table)])
        if not len(rows):
            continue
        by_rule, by_whole = np.abs(rows[:, 1:] / rows[:, :1] - 1).T
        print(
            f"{name}, {len(rows)}; {np.median(by_rule):.1%}, {by_rule.max():.1%}; {np.median(by_whole):.0%}"
        )


if __name__ == "__main__":
    main()
