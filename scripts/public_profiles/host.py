"""What copies to host memory and an optimizer there achieve, from published measurements."""

# Copies of pinned memory, nvbandwidth, GB/s to the device and back; the link's own bandwidth.
COPIES = {
    "pcie": ((55.43, 55.06), 63.0, 5, "8 x H200, PCIe 5.0 x16"),
    "c2c": ((359.05, 377.15), 450.0, 20, "a GB300 DGX Station, NVLink-C2C"),
}
COPIES_SOURCE = "nvbandwidth, stas00/ml-engineering 744d01e (2026-08-22) network/README.md"

# Steps of Qwen3-0.6B (596 M parameters) on one H100, NVIDIA-NeMo/RL pull request 3628: seconds without offload, with
# this share of the parameters offloaded, and whether copies overlap.
PARAMETERS, USUAL = 0.596e9, 0.752
STEPS = ((0.5, 1.187, False), (0.5, 1.216, True), (1.0, 1.678, True))
BYTES = (
    28.0  # of a parameter: read parameter, gradient and moments in fp32, write all but the gradient
)


def adam_rate() -> float:
    """Bytes a second, the geometric mean over the steps."""
    product = 1.0
    for share, step, overlaps in STEPS:
        copies = (
            0.0 if overlaps else 2 * 4.0 * share * PARAMETERS / (sum(COPIES["pcie"][0]) / 2 * 1e9)
        )
        product *= BYTES * share * PARAMETERS / (step - USUAL - copies)
    return product ** (1 / len(STEPS))


def host(link: str) -> list[str]:
    measured, nominal, residual, machine = COPIES[link]
    grace = "; of an x86 host, not measured on Grace" if link == "c2c" else ""
    return [
        "host:",
        f"  copy: {100 * sum(measured) / len(measured) / nominal:.0f} %",
        f"  copy_residual: {residual} %",
        f"  adam: {adam_rate() / 1e9:.3g} GB/s",
        f"  adam_residual: {80 if grace else 50} %",
        f'  source: "copy: {COPIES_SOURCE}, {machine}; adam: steps of Qwen3-0.6B with and without offload on one H100 '
        f'(NVIDIA-NeMo/RL pull request 3628, 2026-08-13), one rank, whose threads are not stated{grace}"',
    ]
