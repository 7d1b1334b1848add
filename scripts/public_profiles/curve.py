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


def row_time(size, row, s):
    """size / rate along one row: a line between points that never falls; the rate is held outside."""
    size = np.array(size, float)
    times = np.maximum.accumulate(size / np.array(row, float))
    return np.interp(s, size, times) * s / np.clip(s, size[0], size[-1])


def interpolate(size, width, rows, s, w, whole=False):
    """RateCurve::at of the vocabulary; whole: size is the whole work, as of a dense GEMM."""
    if len(width) == 1:
        return s / row_time(size, rows[0], s)
    width = np.array(width, float)
    times = [
        row_time(size, row, s / w * at) if whole else at * row_time(size, row, s)
        for at, row in zip(width, rows)
    ]
    stack = np.maximum.accumulate(np.array(times), axis=0)
    inside = np.clip(w, width[0], width[-1])
    hi = np.clip(np.searchsorted(width, inside, side="right"), 1, len(width) - 1)
    share = (inside - width[hi - 1]) / (width[hi] - width[hi - 1])
    column = np.arange(len(s))
    time = stack[hi - 1, column] * (1 - share) + stack[hi, column] * share
    return (s if whole else s * w) / (time * w / inside)


def time_monotone(size, row):
    """A bigger problem must not take less time: rate may grow at most in proportion to size."""
    out = list(row)
    for i in range(len(out) - 2, -1, -1):
        out[i] = max(out[i], out[i + 1] * size[i] / size[i + 1] * 1.0001)
    return out


def rising(row):
    """More rows never lower the rate of a grouped GEMM; a hole takes the rate before it."""
    return [float(np.nanmax(row[: j + 1])) for j in range(len(row))]
