"""How figures and pages write times, sizes and other numbers."""

from __future__ import annotations


def time_unit(seconds: float) -> tuple[float, str]:
    """Factor and name of the unit in which numbers up to this longest time are shown."""
    if seconds >= 1.0:
        return 1.0, "s"
    return (1e3, "ms") if seconds >= 1e-3 else (1e6, "us")


def byte_unit(count: float) -> tuple[float, str]:
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return 1.0 / size, name
    return 1.0, "B"


def significant(value: float) -> str:
    """Three significant digits without an exponent: 1.23, 12.3, 1234."""
    if value == 0:
        return "0"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text
