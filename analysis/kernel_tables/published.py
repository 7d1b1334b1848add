"""What others reach on the same kind of GPU and shapes (one NVIDIA H200, medians of Triton's
do_bench): the released implementation of arXiv 2602.04870 and torch._grouped_mm of PyTorch 2.11.
"""

# Shape of the HP layer: router backward ms, experts forward and backward us, forward + backward ms
# of the whole layer (the lower end where it varied), peak GiB of allocated memory.
RELEASED_ROUTER_BACKWARD_MS = {"B": 1.79, "C": 2.08, "D": 2.32}
RELEASED_EXPERTS_US = {
    "experts_forward": {"A": 840, "B": 1700, "C": 3050},
    "experts_backward": {"A": 2650, "B": 5410, "C": 14500},
}
RELEASED_EXPERTS_TFLOPS = {
    "experts_forward": {"A": 81, "B": 81, "C": 90},
    "experts_backward": {"A": 52, "B": 51, "C": 38},
}
RELEASED_LAYER_STEP_MS = {"A": 10.5, "B": 18.9, "C": 43.4, "D": 21.1}
RELEASED_LAYER_GIB = {"A": 1.56, "B": 3.17, "C": 3.88, "D": 2.41}

# torch._grouped_mm with a GELU kernel; it refuses the more than 1024 groups of B and D.
TORCH_HP_TFLOPS = {
    "experts_forward": {"A": 144, "C": 267},
    "experts_backward": {"A": 176, "C": 311},
}
TORCH_EP_FORWARD = {"E1": (1.12, 490), "E2": (1.38, 549)}  # ms, TFLOP/s

# Shapes: heads on the rank, head width, experts, expert width, tokens of the group, k.
HP_SHAPES = {
    "A": "2, 128, 128, 256, 65536, 4",
    "B": "8, 128, 128, 256, 32768, 4",
    "C": "4, 256, 128, 512, 32768, 4",
    "D": "8, 64, 256, 128, 32768, 8",
}
EP_SHAPES = {  # experts, d, f, rows
    "E1": "32, 1024, 1024, 131072",
    "E2": "16, 2048, 1408, 65536",
    "E3": "64, 2048, 512, 131072",
}
ROW_SHAPES = {  # tokens, k, d
    "P1": "32768, 4, 1024",
    "P2": "16384, 8, 2048",
    "P3": "8192, 8, 7168",
}
DENSE_SHAPES = {  # heads, head width, model width, tokens
    "G1": "8, 128, 1024, 32768",
    "G2": "16, 128, 2048, 16384",
    "G3": "32, 64, 2048, 16384",
}
OPTIMIZER_SHAPES = {"O1": "67.1 M", "O2": "8.4 M"}
