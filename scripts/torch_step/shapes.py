"""The models that moe_step.py runs: half of them to fit by, half to judge by, drawn before any was measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    name: str
    gpus: int
    layers: int
    micro_batches: int
    tokens: int  # of a micro-batch and rank
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    top_k: int
    expert_hidden: int
    vocab: int
    implementation: str = "grouped"  # of the experts: grouped or loop
    use: str = "fit"  # fit or judge

    @property
    def sequence(self) -> int:
        return min(self.tokens, 4096)


# gpus, layers, micro-batches, T, d, heads, kv heads, head dim, E, k, f, vocabulary, experts, use
SHAPES = [
    Shape("floor-1", 1, 4, 1, 64, 256, 4, 2, 64, 8, 2, 128, 1024, "grouped", "fit"),
    Shape("a1", 1, 4, 1, 256, 512, 8, 2, 64, 8, 2, 512, 8192, "grouped", "fit"),
    Shape("a2", 1, 8, 4, 512, 1024, 8, 4, 128, 16, 2, 512, 8192, "grouped", "judge"),
    Shape("a3", 1, 6, 1, 1024, 768, 12, 4, 64, 32, 4, 384, 8192, "grouped", "judge"),
    Shape("a4", 1, 4, 1, 4096, 2048, 16, 4, 128, 16, 2, 1024, 32000, "grouped", "fit"),
    Shape("a5", 1, 4, 4, 8192, 2048, 16, 16, 128, 64, 6, 768, 32000, "grouped", "judge"),
    Shape("a6", 1, 4, 1, 16384, 4096, 32, 8, 128, 8, 2, 2048, 32000, "grouped", "fit"),
    Shape("a7", 1, 4, 1, 512, 1024, 8, 4, 128, 16, 2, 512, 8192, "loop", "judge"),
    Shape("floor-2", 2, 4, 1, 64, 256, 4, 2, 64, 8, 2, 128, 1024, "grouped", "fit"),
    Shape("b1", 2, 4, 1, 256, 512, 8, 2, 64, 8, 2, 512, 8192, "grouped", "fit"),
    Shape("b2", 2, 8, 1, 512, 1024, 8, 4, 128, 16, 4, 512, 8192, "grouped", "judge"),
    Shape("b3", 2, 6, 4, 1024, 1024, 8, 2, 128, 32, 2, 1024, 8192, "grouped", "fit"),
    Shape("b4", 2, 4, 4, 1024, 768, 12, 4, 64, 64, 8, 256, 8192, "grouped", "judge"),
    Shape("b5", 2, 4, 4, 2048, 1024, 8, 4, 128, 16, 2, 1024, 32000, "grouped", "fit"),
    Shape("b6", 2, 4, 1, 4096, 2048, 16, 16, 128, 64, 6, 768, 32000, "grouped", "judge"),
    Shape("b7", 2, 8, 1, 4096, 2048, 32, 4, 128, 128, 8, 768, 32000, "grouped", "fit"),
    Shape("b8", 2, 4, 4, 8192, 2048, 16, 16, 128, 64, 8, 1024, 32000, "grouped", "fit"),
    Shape("b9", 2, 4, 1, 8192, 4096, 32, 8, 128, 8, 2, 14336, 32000, "grouped", "judge"),
    Shape("b10", 2, 4, 1, 16384, 4096, 32, 8, 128, 64, 4, 2048, 32000, "grouped", "judge"),
    Shape("b11", 2, 4, 1, 2048, 1024, 8, 4, 128, 32, 4, 512, 8192, "loop", "judge"),
]
TRACED = Shape("trace", 2, 2, 2, 2048, 1024, 8, 4, 128, 16, 2, 1024, 8192)
