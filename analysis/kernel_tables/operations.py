"""The line that says which run, and every timed case."""

from __future__ import annotations

from kernel_tables.run import Run, percent, spread, table


def which_run(run: Run) -> str:
    head = run.head
    major, minor = divmod(int(head["cuda"]), 1000)
    failed = sum(case.check != "ok" for case in run.cases)
    return (
        f"One run of {head['date']}: {head['device']}, driver {head['driver']}, CUDA {major}.{minor // 10};"
        f" {len(run.cases)} cases, {failed} failed.\n"
        f"Ceilings in it: copy {run.copy_gbs:,.0f} GB/s, GEMM {float(head['gemm_tflops']):.0f} TFLOP/s.\n"
    )


SHOWN_ELSEWHERE = ("adamw", "grouped_")


def operations(run: Run) -> str:
    suites = ["block", "ep", "dense", "moe", "router"]
    rows = []
    for case in sorted(
        (c for c in run.cases if c.timed and not c.op.startswith(SHOWN_ELSEWHERE)),
        key=lambda c: suites.index(c.suite),
    ):
        rows.append(
            [
                case.op,
                case.impl,
                case.shape,
                f"{case.median_us:.1f} us ({spread(case)})",
                f"{case.hot_us:.1f} us",
                f"{case.tflops:.0f}" if case.flops else "-",
                f"{case.gbs:.0f}" if case.bytes else "-",
                percent(case.of_roofline) if case.roofline_us else "-",
                f"{case.error:.1e}",
            ]
        )
    timing = ["median (p10-p90), L2 cold", "L2 hot", "TFLOP/s", "GB/s", "of roofline", "check"]
    return table(["operation", "implementation", "shape", *timing], rows)
