"""Curves of a profile and how they are written; the same interpolation as models/vocab/profile.cpp."""

import numpy as np

MIB = 2.0**20


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
        out += [f"{pad}residual: {self.residual * 100:.2g} %", f'{pad}source: "{self.source}"']
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


def rising(row):
    """More rows never lower the rate of a grouped GEMM; a hole takes the rate before it."""
    return [float(np.nanmax(row[: j + 1])) for j in range(len(row))]
