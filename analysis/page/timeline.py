"""Timelines of plans as inline SVG: no script, no library; widths are percentages, so that they fit any screen."""

from __future__ import annotations

import math

from page.tables import Html, duration, joined, markup, time
from palette import PHASES

WIDEST = 1.4  # longest steps on the axis; a wider interval runs out of it
SMALL = 0.01  # of a plan's step; shorter phases are left to the table
_HATCHES = {
    "///": '<path d="M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4"/>',
    "...": '<circle cx="2" cy="2" r="1"/><circle cx="6" cy="6" r="1"/>',
    "xxx": '<path d="M0,0 l8,8 M0,8 l8,-8"/>',
}
_PASSES = ("forward", "backward", "update")


def _bright(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.3 * red + 0.59 * green + 0.11 * blue > 150


def _hatch(colour: str, hatch: str) -> str:
    return f"hatch-{list(_HATCHES).index(hatch)}-{'dark' if _bright(colour) else 'light'}"


def hatches() -> Html:
    """What the bars and swatches of the page refer to."""
    parts = []
    for colour in ("#000000", "#ffffff"):
        for hatch, lines in _HATCHES.items():
            ink = "#00000099" if _bright(colour) else "#ffffffcc"
            parts.append(
                f'<pattern id="{_hatch(colour, hatch)}" width="8" height="8" patternUnits="userSpaceOnUse" '
                f'stroke="{ink}" fill="none">{lines}</pattern>'
            )
    return Html(
        f'<svg class="defs" width="0" height="0" aria-hidden="true"><defs>{"".join(parts)}</defs></svg>'
    )


def _filled(place: str, phase: str, inside: str = "") -> str:
    colour, hatch = PHASES[phase]
    rect = f'<rect {place} fill="{colour}">{inside}</rect>'
    return rect + (f'<rect {place} fill="url(#{_hatch(colour, hatch)})"/>' if hatch else "")


def swatch(phase: str) -> Html:
    inside = _filled('width="100%" height="100%"', phase)
    return Html(f'<svg class="swatch" width="14" height="14" aria-hidden="true">{inside}</svg>')


def _percent(value: float, scale: float) -> str:
    return f"{100 * value / scale:.3f}%"


def _bar(plan: dict, scale: float) -> str:
    """Phases in the order of a step, what pass they belong to under them, and the interval of the step's end."""
    begin, parts = 0.0, []
    for name in _PASSES:
        first = begin
        for cost in plan["phases"]:
            if cost["pass"] != name or cost["time_s"] <= 0:
                continue
            place = f'x="{_percent(begin, scale)}" width="{_percent(cost["time_s"], scale)}" height="30"'
            said = f"<title>{cost['phase']}, {name}: {_words(cost['time_s'])}</title>"
            parts.append(_filled(place, cost["phase"], said))
            begin += cost["time_s"]
        if begin > first:
            left, right = _percent(first, scale), _percent(begin, scale)
            parts.append(f'<line class="pass" x1="{left}" x2="{right}" y1="34" y2="34"/>')
            parts.append(
                f'<line class="end" x1="{right}" x2="{right}" y1="0" y2="37"/>'
                + (f'<text x="{left}" y="47">{name}</text>' if begin - first > 0.12 * scale else "")
            )
    parts.append(f'<rect class="outline" width="{_percent(begin, scale)}" height="30"/>')
    ends = plan["step_time_interval_s"]
    low, high = (_percent(min(end, scale), scale) for end in ends)
    parts.append(f'<line class="interval" x1="{low}" x2="{high}" y1="56" y2="56"/>')
    parts += [
        f'<line class="interval" x1="{_percent(end, scale)}" x2="{_percent(end, scale)}" y1="52" y2="60"/>'
        for end in ends
        if end <= scale
    ]
    return "".join(parts)


def _words(seconds: float) -> str:
    unit = time(seconds)
    return f"{unit.shown(seconds)} {unit.name}"


def _axis(scale: float) -> str:
    unit = time(scale)
    step = 10 ** math.floor(math.log10(unit.factor * scale))
    step *= next(m for m in (0.2, 0.5, 1, 2) if unit.factor * scale / (m * step) <= 6)
    ticks = []
    for index in range(int(unit.factor * scale / step) + 1):
        at = _percent(index * step / unit.factor, scale)
        label = f"{index * step:g}" + (f" {unit.name}" if index == 0 else "")
        ticks.append(f'<line class="tick" x1="{at}" x2="{at}" y1="0" y2="5"/>')
        ticks.append(f'<text x="{at}" y="17">{label}</text>')
    return f'<svg class="axis" width="100%" height="20" aria-hidden="true">{"".join(ticks)}</svg>'


def _figure(plan: dict, scale: float, baseline: str) -> str:
    sums = [
        f"{name} {_words(total)}"
        for name in _PASSES
        if (total := sum(p["time_s"] for p in plan["phases"] if p["pass"] == name)) > 0
    ]
    name = markup(plan["name"])
    mark = " (baseline)" if plan["name"] == baseline else ""
    fits = "" if plan["feasible"] else ", does not fit"
    return (
        f'<div class="plan" data-plan="{name}"><p><b>{name}</b>{mark} {duration(plan["step_time_s"])}, '
        f"{plan['speedup_vs_baseline']:.2f}x{fits}</p>"
        f'<svg class="timeline" width="100%" height="62" role="img" '
        f'aria-label="{name}: {", ".join(sums)}">{_bar(plan, scale)}</svg></div>'
    )


def _legend(plans: list[dict]) -> str:
    long = {
        cost["phase"]
        for plan in plans
        for cost in plan["phases"]
        if cost["time_s"] >= SMALL * plan["step_time_s"]
    }
    items = "".join(
        f"<li>{swatch(phase)}{phase.replace('_', ' ')}</li>" for phase in PHASES if phase in long
    )
    return f'<ul class="legend">{items}</ul>'


def timelines(data: dict) -> Html:
    plans = data["plans"]
    longest = max(plan["step_time_s"] for plan in plans)
    scale = min(WIDEST * longest, max(longest, *(p["step_time_interval_s"][1] for p in plans)))
    if scale <= 0:
        return Html("")
    figures = "".join(_figure(plan, scale, data["baseline"]) for plan in plans)
    return joined(
        Html(f"<figure>{figures}{_axis(scale)}{_legend(plans)}<figcaption>"),
        "Exposed time of each phase, in the order of a step; all layers and micro-batches together. "
        "The bracket under a bar is the 90 % interval of its end; "
        "where it has no right end, it goes on. The legend leaves out phases below 1 % "
        "of every step.",
        Html("</figcaption></figure>"),
    )
