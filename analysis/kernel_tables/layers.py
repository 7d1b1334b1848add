"""Whole layers and whole blocks."""

from __future__ import annotations

from kernel_tables.published import HP_SHAPES, RELEASED_LAYER_GIB, RELEASED_LAYER_STEP_MS
from kernel_tables.run import Run, gib, ms, percent, table

ATTENTION = "hopper+cudnn"


def hp_layer(run: Run) -> str:
    rows = []
    for shape, extent in HP_SHAPES.items():
        step = run.case("hp_layer_step", "hopper", shape)
        released = RELEASED_LAYER_STEP_MS[shape]
        rows.append(
            [
                shape,
                extent,
                ms(run.case("hp_layer_forward", "hopper", shape).median_us),
                ms(step.median_us),
                f"{released} ms",
                f"{released / step.ms:.1f} x",
                gib(step),
                f"{RELEASED_LAYER_GIB[shape]} GiB",
            ]
        )
    columns = ["shape", "H, d_h, E, f, T_b, k", "forward", "forward + backward"]
    return table(
        [*columns, "released implementation", "ratio", "peak memory", "released"],
        rows,
    )


def hp_projected(run: Run) -> str:
    rows = []
    for shape in HP_SHAPES:
        step = run.case("hp_projected_step", "hopper", shape)
        products = step.median_us - run.case("hp_layer_step", "hopper", shape).median_us
        forward = run.case("hp_projected_forward", "hopper", shape)
        rows.append(
            [
                shape,
                ms(forward.median_us),
                ms(step.median_us),
                ms(products),
                f"{step.tflops:.0f}",
                gib(step),
            ]
        )
    columns = ["shape", "forward", "forward + backward", "of it head products"]
    return table([*columns, "useful TFLOP/s", "peak memory"], rows)


def block_cells(run: Run, prefix: str, shape: str) -> list[str]:
    step = run.case(prefix + "block_step", ATTENTION, shape)
    with_adamw = run.case(prefix + "block_step_adamw", ATTENTION, shape)
    return [
        ms(run.case(prefix + "block_forward", ATTENTION, shape).median_us),
        f"{ms(step.median_us)} ({step.p10_us:.0f}-{step.p90_us:.0f} us)",
        ms(with_adamw.median_us),
        f"{step.tflops:.0f}",
        percent(step.of_roofline),
    ]


BLOCK_COLUMNS = ["forward", "forward + backward", "with AdamW", "useful TFLOP/s", "of roofline"]


def block(run: Run) -> str:
    rows = []
    for shape, extent in {"A": "256, 32", "B": "1024, 16", "C": "1024, 16", "D": "512, 16"}.items():
        step = run.case("block_step", ATTENTION, shape).median_us

        def both_ways(op: str, impl: str, shape: str = shape) -> float:
            return sum(run.case(op + way, impl, shape).median_us for way in ("forward", "backward"))

        attention = both_ways("attention_", "cudnn")
        experts = run.case("hp_projected_step", "hopper", shape).median_us
        norms = 2 * both_ways("rms_norm_", "fused")
        rows.append(
            [
                shape,
                extent,
                *block_cells(run, "", shape),
                *(ms(part) for part in (attention, experts, norms)),
                ms(step - attention - experts - norms),
                gib(run.case("block_step_adamw", ATTENTION, shape)),
            ]
        )
    parts = ["attention", "head products and HP layer", "norms", "QKV and output (rest)"]
    columns = ["shape", "width, sequences", *BLOCK_COLUMNS, *parts]
    return table([*columns, "peak memory, with AdamW"], rows)


def ep_block(run: Run) -> str:
    rows = []
    for shape in ("E1", "E2", "E3"):
        layer = run.case("ep_layer_step", "hopper", shape)
        rows.append(
            [
                shape,
                *block_cells(run, "ep_", shape),
                f"{ms(layer.median_us)} ({layer.tflops:.0f} TFLOP/s)",
                gib(run.case("ep_block_step_adamw", ATTENTION, shape)),
            ]
        )
    alone = "EP layer alone, forward + backward"
    return table(["shape", *BLOCK_COLUMNS, alone, "peak memory, with AdamW"], rows)


def other_blocks(run: Run) -> str:
    """Forward + backward of the blocks with other parts."""
    kinds = {
        "HP, attention through cuBLASLt": ("block_step", "hopper+cublaslt", "ABCD"),
        "HP, no Hopper kernel of ours, cuBLASLt": ("block_step", "portable+cublaslt", "ABCD"),
        "EP, attention through cuBLASLt": ("ep_block_step", "hopper+cublaslt", "123"),
    }
    rows = []
    for name, (op, impl, shapes) in kinds.items():
        cases = [run.case(op, impl, "E" + s if s.isdigit() else s) for s in shapes]
        rows.append([name, ", ".join(f"{case.shape} {ms(case.median_us)}" for case in cases)])
    return table(["block", "forward + backward"], rows)
