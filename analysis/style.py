"""Colours and units that all figures share."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLE_FILE = Path(__file__).with_name("headway.mplstyle")

# Colour and hatch of a phase, in the order of a forward pass. Communication is warm, expert work blue, attention green, moving
# rows about light blue, the rest grey; the hatch tells neighbours of one hue apart in print.
PHASES = {
    "embed": ("#999999", ""),
    "norm": ("#BBBBBB", ""),
    "attention_qkv": ("#66C2A5", ""),
    "attention_core": ("#009E73", ""),
    "attention_out": ("#66C2A5", "///"),
    "dense_mlp": ("#777777", ""),
    "latent_down": ("#7B6FB3", ""),
    "head_project": ("#9D93CC", ""),
    "head_scatter": ("#D55E00", "///"),
    "route": ("#F0E442", ""),
    "shared_expert": ("#4C9BD0", "..."),
    "permute": ("#A9D8F5", ""),
    "count_exchange": ("#CC79A7", ""),
    "dispatch": ("#D55E00", ""),
    "regroup": ("#56B4E9", ""),
    "expert": ("#0072B2", ""),
    "ungroup": ("#56B4E9", "///"),
    "combine": ("#E69F00", ""),
    "unpermute": ("#A9D8F5", "///"),
    "latent_up": ("#7B6FB3", "///"),
    "head_gather": ("#E69F00", "///"),
    "head_merge": ("#9D93CC", "///"),
    "lm_head": ("#555555", ""),
    "loss": ("#555555", "///"),
    "grad_all_reduce": ("#8C510A", ""),
    "expert_grad_all_reduce": ("#8C510A", "///"),
    "optimizer": ("#333333", ""),
    "param_all_gather": ("#BF812D", "///"),
    "others": ("#DDDDDD", ""),
}

LINKS = {
    "nvlink": ("#0072B2", ""),
    "pcie": ("#56B4E9", "///"),
    "nic": ("#D55E00", ""),
    "spine": ("#E69F00", "///"),
}

SOURCES = {"predicted": "#0072B2", "simulated": "#009E73", "measured": "#D55E00"}


def use_style() -> None:
    plt.style.use(STYLE_FILE)


def time_unit(seconds: float) -> tuple[float, str]:
    """Factor and name of the unit in which a figure with this longest time is drawn."""
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


def legend_below(figure, handles, columns: int = 5) -> None:
    """One legend under the axes, where it never covers data; `savefig.bbox: tight` keeps it.

    At most `columns`, and no row that is nearly empty.
    """
    rows = math.ceil(len(handles) / columns)
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=columns)
