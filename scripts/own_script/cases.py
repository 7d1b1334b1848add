"""What train.py trains: sizes on one GPU, and layouts of two ranks. Drawn before any of them was measured."""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "torch_step"))
from shapes import Shape


@dataclass(frozen=True)
class Case:
    shape: Shape
    layout: str = "ep"  # ep, fsdp, tp
    overlap: bool = False  # gradients leave layer by layer, beside the backward pass
    zipf: float = 0.0  # exponent of the forced router's popularity
    recorded: str = ""  # the case whose trace is the program; "": its own

    @property
    def name(self) -> str:
        return self.shape.name


def shape(name, gpus, layers, tokens, hidden, experts, k, width):
    return Shape(
        name,
        gpus,
        layers,
        1,
        tokens,
        hidden,
        hidden // 128,
        hidden // 256,
        128,
        experts,
        k,
        width,
        8192,
    )


# One GPU, from launch-bound to GEMM-bound: layers, T, d, E, k, f.
IDENTITY = [
    Case(shape("one-1", 1, 4, 128, 512, 8, 2, 256)),
    Case(shape("one-2", 1, 8, 512, 512, 16, 2, 512)),
    Case(shape("one-3", 1, 4, 1024, 1024, 16, 4, 512)),
    Case(shape("one-4", 1, 6, 2048, 1024, 32, 4, 512)),
    Case(shape("one-5", 1, 4, 4096, 2048, 16, 2, 1024)),
    Case(shape("one-6", 1, 4, 8192, 1024, 64, 8, 512)),
    Case(shape("one-7", 1, 4, 8192, 2048, 32, 4, 1024)),
    Case(shape("one-8", 1, 3, 16384, 4096, 8, 2, 2048)),
]

# Two ranks.
PAIRS = [
    Case(shape("ep-1k", 2, 4, 1024, 1024, 16, 2, 512)),
    Case(shape("ep-2k", 2, 4, 2048, 1024, 32, 4, 512)),
    Case(shape("ep-4k", 2, 4, 4096, 2048, 64, 8, 768)),
    Case(shape("ep-8k", 2, 4, 8192, 2048, 64, 8, 1024)),
    Case(shape("ep-16k", 2, 4, 16384, 2048, 32, 4, 1024)),
    Case(shape("ep-32k", 2, 3, 32768, 1024, 64, 2, 1024)),
    Case(shape("ep-8k-zipf05", 2, 4, 8192, 2048, 64, 8, 1024), zipf=0.5, recorded="ep-8k"),
    Case(shape("ep-8k-zipf1", 2, 4, 8192, 2048, 64, 8, 1024), zipf=1.0, recorded="ep-8k"),
    Case(shape("ep-8k-overlap", 2, 4, 8192, 2048, 64, 8, 1024), overlap=True),
    Case(shape("fsdp-4k", 2, 4, 4096, 2048, 16, 2, 1024), layout="fsdp"),
    Case(shape("fsdp-16k", 2, 4, 16384, 2048, 16, 2, 1024), layout="fsdp"),
    Case(shape("tp-8k", 2, 6, 8192, 4096, 8, 2, 1024), layout="tp"),
]


def popularity(case: Case) -> list[float]:
    """Shares of the experts; expert e is the e-th most popular, so that rank 0 is the straggler."""
    weights = [1.0 / (e + 1) ** case.zipf for e in range(case.shape.experts)]
    return [w / sum(weights) for w in weights]


def find(name: str) -> Case:
    return next(case for case in IDENTITY + PAIRS if case.name == name)
