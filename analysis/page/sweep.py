"""A sweep as a table of all its points; the script puts a slider for each axis in front of it."""

from __future__ import annotations

import html
import json

from page.tables import Head, Html, Row, amount, duration, joined, markup, number, table
from results import Sweep

# Columns that are shown first, and their heads.
_FIRST = {
    "step_low_s": "low",
    "step_high_s": "high",
    "speedup_vs_baseline": "speedup",
    "tokens_per_s_per_gpu": "tokens/s/GPU",
    "memory_peak_bytes": "memory, busiest rank",
}
_TIMES = ("step_low_s", "step_high_s", "moe_forward_s", "moe_backward_s")


def varied(sweep: Sweep) -> list[str]:
    return [axis for axis in sweep.axes if len({row[axis] for row in sweep.rows}) > 1]


def _head(column: str) -> str:
    words = column.removesuffix("_s") if column in _TIMES else column
    return _FIRST.get(column, words.replace("_", " "))


def _cell(column: str, text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    if column in _TIMES:
        return duration(value)
    if "bytes" in column:
        return amount(value)
    return number(value, f"{value:,.0f}" if abs(value) >= 1000 else None)


def _step(row: dict[str, str], longest: float) -> Html:
    """The step as a bar of all points' scale, its interval under it."""
    if not row["step_time_s"] or longest <= 0:
        return Html("")
    step = float(row["step_time_s"])
    width, low, high = (
        f"{100 * float(row[column] or step) / longest:.2f}%"
        for column in ("step_time_s", "step_low_s", "step_high_s")
    )
    return joined(
        duration(step),
        Html(
            '<svg class="bar" width="100%" height="12" aria-hidden="true">'
            f'<rect width="{width}" height="8"/><line x1="{low}" x2="{high}" y1="11" y2="11"/></svg>'
        ),
    )


def _slider(index: int, axis: str, values: list[str]) -> str:
    name = f"axis-{index}"
    listed = html.escape(json.dumps(values))
    return (
        f'<p><label for="{name}">{html.escape(axis)}</label> <input type="range" id="{name}" min="0" '
        f'max="{len(values) - 1}" step="1" value="0" data-axis="{html.escape(axis)}" '
        f'data-values="{listed}"> <output for="{name}">{html.escape(values[0])}</output></p>'
    )


def _controls(axes: list[str], values: list[list[str]]) -> str:
    """Hidden until the script shows them, as the curves that it draws."""
    if not axes:
        return ""
    sliders = "".join(_slider(index, axis, values[index]) for index, axis in enumerate(axes))
    options = "".join(f"<option>{html.escape(axis)}</option>" for axis in axes)
    return (
        f'<form class="controls" id="sliders" hidden aria-label="point of the sweep">{sliders}'
        f'<p><label for="over">step over</label> <select id="over">{options}</select></p>'
        '<svg id="curves" width="100%" height="190" role="img"></svg>'
        '<p><label><input type="checkbox" id="all-points"> all points in the table</label> '
        '<output id="point" aria-live="polite"></output></p></form>'
    )


def section(sweep: Sweep) -> Html:
    axes = varied(sweep)
    values = [list(dict.fromkeys(row[axis] for row in sweep.rows)) for axis in axes]
    places = [{text: place for place, text in enumerate(of)} for of in values]
    ends = [row[end] for row in sweep.rows for end in ("step_time_s", "step_high_s")]
    longest = max((float(end) for end in ends if end), default=0.0)
    columns = [
        name for name in sweep.rows[0] if name not in (*sweep.axes, "plan", "step_time_s", *_FIRST)
    ]
    shown = [*(name for name in _FIRST if name in sweep.rows[0]), *columns]
    rows = []
    for row in sweep.rows:
        point = ",".join(str(of[row[axis]]) for axis, of in zip(axes, places, strict=True))
        cells = [row["plan"], *(_cell(axis, row[axis]) for axis in axes)]
        cells += [_step(row, longest), *(_cell(name, row[name]) for name in shown)]
        rows.append(Row(cells, f' data-point="{point}"'))
    heads = ["plan", *(Head(axis, " data-swept") for axis in axes), Head("step", " data-step")]
    heads += [_head(name) for name in shown]
    head = ", ".join(
        f"{key} {sweep.head[key]}"
        for key in ("profile", "version", "seed", "points", "shard")
        if key in sweep.head
    )
    fixed = [axis for axis in sweep.axes if axis not in axes]
    held = "".join(f"; {axis} = {sweep.rows[0][axis]}" for axis in fixed)
    return joined(
        Html('<section id="sweep-section"><h2>Sweep</h2>'),
        Html(f"<p>{markup(head + held)}.</p>{_controls(axes, values)}"),
        table("sweep", "Points of the sweep", heads, rows),
        Html("</section>"),
    )
