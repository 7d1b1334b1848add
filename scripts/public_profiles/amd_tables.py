"""What is published of MI300X and MI355X. Rates are TFLOP/s as published unless said otherwise."""

KITTENS = "HazyResearch/HipKittens f09e968 (2025-11-20)"
TURBO = "AMD-AGI/Primus-Turbo"
SMOKE = "hisohara/ai-scripts 0780bb3, RCCL smoke tests"
ALLREDUCE_BLOG = "AMD, 'Understanding RCCL Bandwidth and xGMI Performance' (2025-03-02)"

AMD = {
    "mi300x": dict(
        device="AMD Instinct MI300X",
        like="h200",
        peak=1307.4e12,
        bw=5.3e12,
        mamf=668.4,
        units=304,
        link="448 GB/s",
        card="ConnectX-7",
        copy=(
            0.775,
            0.2,
            "BabelStream copy 4.11 TB/s (Azure's AI-benchmarking-guide, ND MI300X v5)",
        ),
    ),
    "mi355x": dict(
        device="AMD Instinct MI355X",
        like="b200",
        peak=2516.6e12,
        bw=8e12,
        mamf=1565.0,
        units=256,
        link="537.6 GB/s",
        card="Pollara 400",
        copy=(
            0.70,
            0.25,
            "by analogy with MI350X: copy kernel 5.6 TB/s, reads alone 6.9 to 7.2 (ROCm/rocm-systems pull request 8480)",
        ),
    ),
}

# Square bf16 GEMMs by torch.matmul (hipBLASLt): 1024 to 16384. The two smallest on MI355X are HipKittens' own kernel, whose times
# hold less of the host's.
SIDES = [1024, 2048, 4096, 8192, 16384]
SQUARE = {
    "mi325x": [79.1, 325.0, 752.5, 785.3, 749.8],
    "mi355x": [139.5, 665.1, 1138.5, 1521.3, 1559.8],
}
SQUARE_FP8 = [204.9, 1172.7, 2748.8, 3233.2, 3293.2]  # MI355X, hipBLASLt
# Sustained on the GEMM shapes of a Llama 70B layer (SemiAnalysis, MI300X vs H100 vs H200, 2024-12).
SUSTAINED_MI300X = 620.0
# Tuned bf16 GEMMs on MI355X, ROCm/aiter pull request 2559: N, K, us for M = 131072 and 65536.
THIN = {
    131072: [
        (7168, 256, 652.89),
        (7168, 512, 894.82),
        (4096, 512, 575.00),
        (2048, 512, 302.96),
        (7168, 1024, 1463.17),
        (1536, 1536, 477.87),
        (7168, 2048, 2645.58),
        (512, 7168, 691.21),
        (1024, 7168, 1283.69),
        (3072, 1536, 940.13),
        (2112, 7168, 2813.79),
        (384, 7168, 631.25),
    ],
    65536: [
        (7168, 256, 338.17),
        (7168, 512, 462.80),
        (4096, 512, 303.28),
        (2048, 512, 158.80),
        (7168, 1024, 746.78),
        (3072, 1536, 473.85),
        (1536, 1536, 250.93),
        (512, 7168, 356.14),
        (2112, 7168, 1402.34),
        (1024, 7168, 654.13),
    ],
}
# Grouped GEMMs of DeepSeek-V3's experts on MI355X, bf16, one product an expert (Primus-Turbo pull request 284, column GMM), by
# rows an expert: GateUP and Down forward; of 2048 rows also their dgrad and wgrad.
GROUPED_FORWARD = {2048: (1063, 1219), 4096: (1507, 1298)}
GROUPED_BACKWARD = {2048: [(1139, 1261), (1296, 1202)], 4096: [(1526, 1317)]}
# FP8 over bf16 in one table, forward and backward: Triton, quantization inside (Primus-Turbo pull request 252).
GROUPED_FP8 = (1571.34 / 1164.77, 1557.13 / 1091.87)


# AITER's attention, causal, head width 128, bf16: median of the six rows of batch 4 and 8, at 16384 of the two of batch 1
# (ROCm/aiter 0403bcd op_tests/cpp/mha/README.md); backward with dq summed in fp32. Rates count half of 4 S^2 d a head.
SEQ = [1024, 2048, 4096, 8192, 16384]
ATTENTION = {
    "mi300x": ([324.2, 426.3, 513.4, 544.0, 542.8], [264.9, 331.1, 403.9, 433.6, 416.0]),
    "mi355x": ([649.9, 898.0, 1178.9, 1318.9, 1395.3], [470.9, 620.9, 717.6, 773.4, 809.3]),
}
# Head width 64 over 128, forward: FlashAttention 2 at 8192 tokens (Azure/AI-benchmarking-guide); AITER by sequence (HipKittens).
NARROW_HEADS = {
    "mi300x": (
        [328.6 / 544.0] * 5,
        "FlashAttention 2 at 8192 tokens (Azure's AI-benchmarking-guide, ND MI300X v5)",
    ),
    "mi355x": (
        [317.3 / 715.1, 366.4 / 941.1, 392.3 / 1100.9, 530.7 / 1204.7, 632.6 / 1246.1],
        f"AITER in {KITTENS}, GQA",
    ),
}


# us of an exchange of MoE tokens among 8 GPUs by tokens a rank, bf16, hidden 7168 (ROCm/mori). A GPU gets rate x time bytes,
# of which an eighth is its own.
#   MI300X: top 6, GB/s of dispatch and combine (pull request 538); MI355X: top 8 (its EP8 page), dispatch and combine in us.
MORI_MI300X = {
    64: (108, 133),
    128: (161, 189),
    256: (208, 237),
    512: (252, 272),
    1024: (280, 309),
    2048: (300, 326),
}
MORI_MI355X = {
    64: (129.60, 37.4, 28.3),
    256: (239.64, 81.2, 63.2),
    512: (283.19, 137.2, 107.8),
    4096: (359.92, 863.0, 741.1),
    16384: (377.40, 3298.2, 2895.5),
}
# rccl-tests' all_reduce, float, out of place: MiB of the buffer and us.
REDUCE_8 = {
    2.0**-4: 13.77,
    2.0**-2: 16.87,
    1: 27.42,
    4: 51.72,
    16: 148.8,
    64: 429.1,
    256: 1537.1,
    1024: 5970.6,
}
REDUCE_16 = {
    "mi300x": {
        2.0**-10: 220.8,
        4: 337.9,
        16: 497.3,
        64: 821.9,
        256: 1713.4,
        1024: 5908.3,
        4096: 22788,
    },
    "mi355x": {
        2.0**-10: 47.2,
        1: 81.37,
        4: 118.6,
        16: 261.6,
        64: 614.3,
        256: 1652.0,
        1024: 5525.0,
        4096: 21870,
    },
}
COUNT_US = 16.6
