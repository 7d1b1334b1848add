"""The machines, and what training software sustains on them."""

SIMUMAX = "SimuMax 4dcaae5 (2026-05-11) operator table"
AIC = "aiconfigurator 095f58a (2026-08-21)"  # NVIDIA, Apache-2.0; the folder is systems/data/<machine>

DEVICES = {
    "a100": dict(
        narrow=False,
        sustained="MAMF, stas00/ml-engineering 2026",
        dir="a100_sxm",
        device="NVIDIA A100-SXM4-80GB",
        peak=312e12,
        mamf=271.2e12,
        bw=2.039e12,
        nccl="2.27.3",
        gemm=("sglang/0.5.10", None),
        moe=("trtllm/1.0.0", "power_law_1.01"),
        att="trtllm/1.0.0",
        nic=25e9,
        sms=108,
        fp32=19.5,
        ranks=(2, 4, 8),
    ),
    "h100": dict(
        narrow=True,
        sustained="sustained: SemiAnalysis 2024-12",
        dir="h100_sxm",
        device="NVIDIA H100 80GB HBM3",
        peak=989e12,
        mamf=794.5e12,
        bw=3.35e12,
        nccl="2.29.2",
        gemm=("vllm/0.24.0", "torch.nn.functional.linear"),
        moe=("trtllm/1.3.0rc20", "balanced"),
        att="trtllm/1.3.0rc20",
        nic=50e9,
        sms=132,
        fp32=67,
        ranks=(2, 4, 8),
    ),
    "h200": dict(
        narrow=True,
        sustained="sustained: SemiAnalysis 2024-12",
        dir="h200_sxm",
        device="NVIDIA H200",
        peak=989e12,
        mamf=794.5e12,
        bw=4.8e12,
        nccl="2.29.2",
        gemm=("vllm/0.24.0", "torch.nn.functional.linear"),
        moe=("trtllm/1.3.0rc20", "balanced"),
        att="trtllm/1.3.0rc20",
        nic=50e9,
        sms=132,
        fp32=67,
        ranks=(2, 4, 8),
    ),
    "b200": dict(
        narrow=True,
        sustained="x",
        dir="b200_sxm",
        device="NVIDIA B200",
        peak=2250e12,
        mamf=1745e12,
        bw=8e12,
        nccl="2.29.2",
        gemm=("vllm/0.24.0", "torch.nn.functional.linear"),
        moe=("trtllm/1.3.0rc20", "balanced"),
        att="trtllm/1.3.0rc20",
        nic=50e9,
        sms=148,
        fp32=75,
        ranks=(2, 4, 8),
    ),
    "gb200": dict(
        narrow=True,
        sustained="x",
        mamf_source="MAMF",
        dir="gb200",
        device="NVIDIA GB200",
        peak=2500e12,
        mamf=1822e12,
        bw=8e12,
        nccl="2.29.2",
        gemm=("vllm/0.24.0", "torch.nn.functional.linear"),
        moe=("trtllm/1.3.0rc20", "balanced"),
        att="trtllm/1.3.0rc20",
        nic=50e9,
        sms=152,
        fp32=80,
        ranks=(2, 4),
    ),
    "l40s": dict(
        narrow=False,
        sustained="datasheet",
        dir="l40s",
        device="NVIDIA L40S",
        peak=362e12,
        mamf=None,
        bw=0.864e12,
        nccl="2.27.3",
        gemm=("vllm/0.24.0", "torch.nn.functional.linear"),
        moe=("trtllm/1.3.0rc20", "balanced"),
        att="trtllm/1.3.0rc20",
        nic=None,
        sms=142,
        fp32=91.6,
        ranks=(2, 4, 8),
    ),
}

# Blackwell Ultra: as Blackwell but for what is given here.
ULTRA_SOURCE = "bf16 GEMMs of 0.27 TFLOP in aiconfigurator's gemm/trtllm/1.3.0rc20, over B200's"
for name, like, folder, measured in (
    ("b300", "b200", "b300_sxm", 1545),
    ("gb300", "gb200", "gb300", 1808),
):
    DEVICES[name] = DEVICES[like] | dict(
        dir=folder,
        device=DEVICES[like]["device"].replace("200", "300"),
        mamf=DEVICES["b200"]["mamf"] * measured / 1472,
        mamf_source=ULTRA_SOURCE,
        nic=100e9,
    )

# Host time of a forward of torch.nn.Linear, 8192 x 2048 in bf16, the shortest operator with one kernel, on a DGX H100 (Xeon
# Platinum 8480C): TransformerEngine issue 2053, 2025-08-11. Every host is taken to be as quick: the 37 us that it gives for
# Grace would make a layer of Qwen3-235B take 16 ms there, where Megatron-Bridge's 25.11 needs 8.4 ms in all.
HOST_LAUNCH_US = 13.48

BLACKWELL = ("b200", "gb200", "b300", "gb300")

# What training software sustains on large GEMMs, where the tables above are bursts at boost clocks.
#   H100, H200: about 720 TFLOP/s on the GEMM shapes of a Llama 70B layer (SemiAnalysis, MI300X vs H100 vs H200, 2024-12).
SUSTAINED_DENSE = {"h100": 720e12, "h200": 720e12}
#   Highest published rate of TransformerEngine's GroupedLinear on H100 (TransformerEngine PR 2045: 554 to 651 TFLOP/s).
SUSTAINED_GROUPED = {"h100": 651e12, "h200": 651e12}
# Backward over forward of Megatron's (TransformerEngine) grouped GEMM on H100: SonicMoE figure 14, four shapes, mean.
GROUPED_BACKWARD_RATIO = 0.94
