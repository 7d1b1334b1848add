"""Builds scenarios/profiles/*_public.yaml from public measurement tables.

usage: python3 scripts/public_profiles SYSTEMS_DIR SIMUMAX_DIR OUT_DIR   (needs pandas and pyarrow)
SYSTEMS_DIR: systems/ of github.com/ai-dynamo/aiconfigurator (Apache-2.0) at commit 095f58a.
SIMUMAX_DIR: configs/system/ of github.com/MooreThreads/SimuMax at commit 4dcaae5: operators timed inside training software.
"""

import sys

import amd
from devices import AIC, BLACKWELL, DEVICES, HOST_LAUNCH_US, SIMUMAX
from gemm import NARROW, by_analogy, dense_gemm, grouped_gemm, narrow_dense, narrow_grouped
from host import host
from network import nccl_curve, nccl_rows, network_curves, rack_curves
from operators import attention, byte_curves, fused_expert, router

KINDS = (
    "dense_gemm",
    "grouped_gemm",
    "fused_expert",
    "attention",
    "router",
    "gather",
    "streaming",
    "optimizer",
)


def header(name, title, device, peak, bw, nccl, note=""):
    return [
        "# yaml-language-server: $schema=../profile.schema.json",
        f"# {title}",
        f"name: {name}",
        "provenance:",
        f"  device: {device}",
        f"  peak_matmul: {peak / 1e12:g} TFLOP/s",
        f"  memory_bandwidth: {bw / 1e9:g} GB/s",
        "  kind: public",
        "  date: 2026-11-30",
        *([f'  nccl: "{nccl}"'] if nccl else []),
        "  command: scripts/public_profiles SYSTEMS_DIR SIMUMAX_DIR OUT_DIR",
        f'  note: "Built from cited public measurements, not measured on your machine.{note} Calibrate before you rely on it."',
    ]


def kernel_lines(kernels, narrow):
    out = ["kernels:"]
    for kind in KINDS:
        if kind not in kernels:
            continue
        out.append(f"  {kind}:")
        for direction, curve in zip(("forward", "backward"), kernels[kind]):
            if curve is not None:
                out.append(f"    {direction}:")
                out += curve.lines(6)
        for dtype, curves in narrow.get(kind, {}).items():
            out.append(f"    {dtype}:")
            for direction, curve in zip(("forward", "backward"), curves):
                if curve is not None:
                    out.append(f"      {direction}:")
                    out += curve.lines(8)
    return out


def overheads(count_us, count_source, slowdown, slowdown_source):
    # DeepEP's notify is a count exchange with the host's wait: mean of T = 1024 and 4096, 2 nodes, 24 SMs.
    sync_us = (52.2 + 56.1) / 2 - count_us
    launch_us = (3.0 * 30.0) ** 0.5
    return [
        "overheads:",
        f"  launch: {launch_us:.2g} us",
        f"  host_sync: {sync_us:.2g} us",
        f"  count_exchange: {count_us:.3g} us",
        f"  host_launch: {HOST_LAUNCH_US:.3g} us",
        "  host_residual: 40 %",
        f"  overlap_slowdown: {slowdown:.3f}",
        "  residual: 60 %",
        f'  source: "count_exchange: {count_source}; host_sync: DeepEP notify on 2 H100 nodes (54 us, ibid. comm/sglang/0.5.6.post2) '
        f"less that; launch: geometric mean of 3 us an operator under CUDA graphs ({AIC}) and 30 us in training software ({SIMUMAX}); overlap_slowdown: {slowdown_source}; "
        'host_launch: torch.nn.Linear on a DGX H100 (TransformerEngine issue 2053, 2025-08-11)"',
    ]


def amd_profile(name, root, simumax):
    dev, kernels, narrow, communication = amd.profile(name, root, simumax)
    out = header(
        f"{name}_public",
        f"{dev['device']}: public measurements",
        dev["device"],
        dev["peak"],
        dev["bw"],
        None,
        " No curve of HP's experts.",
    )
    out += [*kernel_lines(kernels, narrow), "communication:", *communication]
    out += overheads(*amd.waits(dev)) + host("pcie")
    return "\n".join(out) + "\n"


def profile(name, root, simumax, paper=False):
    dev = DEVICES[name]
    gemm, gemm_back = dense_gemm(name, dev, root, simumax, ("TN", "NN")), None
    raised = gemm
    if name == "b200":
        gemm = dense_gemm(name, dev, root, simumax, raised=False)
        gemm_back = dense_gemm(name, dev, root, simumax, ("NN", "NT"), raised=False)
    att, att_back = attention(dev, root)
    kernels = {
        "dense_gemm": (gemm, gemm_back),
        "grouped_gemm": grouped_gemm(name, dev, root, simumax),
        "attention": (att, att_back),
        "router": router(dev, name, gemm, paper),
    }
    if name not in ("l40s",):
        kernels["fused_expert"] = fused_expert(dev, name, paper)
    narrow = {"dense_gemm": {}, "grouped_gemm": {}, "attention": {}}
    if dev["narrow"]:
        narrow["attention"]["fp8"] = attention(dev, root, "fp8")
        for kind in NARROW:
            if kind == "nvfp4" and name not in BLACKWELL:
                continue
            dense = narrow_dense(kind, dev, root, raised)
            narrow["dense_gemm"][kind] = (dense, None)
            narrow["grouped_gemm"][kind] = narrow_grouped(
                kind, dev, root, kernels["grouped_gemm"], (dense, raised)
            )
        if name in BLACKWELL:
            # The tensor cores take both: blocks of 1 x 32 instead of 1 x 128.
            for kernel in ("dense_gemm", "grouped_gemm"):
                narrow[kernel]["mxfp8"] = by_analogy(narrow[kernel]["fp8_block"])
    for kind, curve in byte_curves(dev, name).items():
        kernels[kind] = (curve, None)
    experts = (
        "the FlexAttention experts of arXiv 2602.04870" if paper else "torch._grouped_mm experts"
    )
    kernel_note = "" if name == "l40s" else f" HP experts are priced as {experts}."
    suffix = "paper_kernels" if paper else "public"
    title = (
        f"{dev['device']}: public measurements"
        + {
            "public": "",
            "paper_kernels": "; HP experts as the authors' FlexAttention kernels",
        }[suffix]
    )
    head = header(
        f"{name}_{suffix}", title, dev["device"], dev["peak"], dev["bw"], dev["nccl"], kernel_note
    )
    out = head + kernel_lines(kernels, narrow)
    path = "pcie" if name == "l40s" else "nvlink"
    out.append("communication:")
    for ranks in dev["ranks"]:
        out.append(nccl_curve(dev, name, root, "alltoall", "all_to_all", ranks, path))
    if name in ("gb200", "gb300"):
        out += rack_curves(dev, name, root)
    for op in ("all_reduce", "all_gather", "reduce_scatter"):
        out.append(nccl_curve(dev, name, root, op, op, dev["ranks"][-1], path))
    if dev["nic"]:
        out += network_curves(dev)
    floor = nccl_rows(dev, root, "alltoall", dev["ranks"][-1])
    out += overheads(
        float(floor[floor.bytes <= 4096].us.median()),
        f"median nccl-tests alltoall of 4 KiB and less, {dev['ranks'][-1]} GPUs ({AIC})",
        dev["sms"] / (dev["sms"] - 20),
        f"{dev['sms']} SMs of which DeepEP takes 20",
    )
    if not paper:
        out += host("c2c" if name in ("gb200", "gb300") else "pcie")
    return "\n".join(out) + "\n"


def main():
    root, simumax, target = sys.argv[1:4]
    for name in DEVICES:
        text = profile(name, root, simumax)
        with open(f"{target}/{name}_public.yaml", "w") as f:
            f.write(text)
        print(name, len(text))
    for name in amd.AMD:
        with open(f"{target}/{name}_public.yaml", "w") as f:
            f.write(amd_profile(name, root, simumax))
    text = profile("h200", root, simumax, paper=True)
    with open(f"{target}/h200_paper_kernels.yaml", "w") as f:
        f.write(text)


if __name__ == "__main__":
    main()
