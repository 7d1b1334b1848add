"""One self-contained HTML page of a prediction."""

from __future__ import annotations

import html
import io
import re

from style import PHASES
from units import byte_unit, significant, time_unit

STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.15rem 0.7rem; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
td.part { padding-left: 1.6rem; } svg { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: 0.8rem; overflow-x: auto; font-size: 0.8rem; }
.bad { color: #a00; } .wide { overflow-x: auto; }
"""


def duration(seconds: float) -> str:
    factor, unit = time_unit(seconds)
    return f"{significant(factor * seconds)} {unit}" if seconds else "-"


def size(count: float) -> str:
    factor, unit = byte_unit(count)
    return f"{significant(factor * count)} {unit}" if count else "-"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Cells are escaped; a first cell that begins with two spaces is a part of the row above."""

    def row(cells: list[str], tag: str) -> str:
        inside = "".join(
            f"<{tag}{' class=part' if index == 0 and cell.startswith('  ') else ''}>"
            f"{html.escape(cell.strip())}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr>{inside}</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    head = row(header, "th")
    return f'<div class="wide"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def plans_table(data: dict) -> str:
    rows = []
    for plan in data["plans"]:
        low, high = plan["step_time_interval_s"]
        capacity = plan["memory"].get("capacity_bytes", 0)
        share = f" ({100 * plan['memory']['peak_bytes'] / capacity:.0f} %)" if capacity else ""
        rows.append(
            [
                plan["name"] + (" (baseline)" if plan["name"] == data["baseline"] else ""),
                duration(plan["step_time_s"]),
                f"{duration(low)} to {duration(high)}",
                f"{plan['speedup_vs_baseline']:.2f}x"
                + (" (undecided)" if plan.get("undecided") else ""),
                f"{plan['tokens_per_s_per_gpu']:,.0f}",
                significant(plan["model_tflops_per_gpu"]),
                size(plan["memory"]["peak_bytes"]) + share,
                "yes" if plan["feasible"] else "no",
            ]
        )
    header = ["plan", "step", "interval (90 %)", "speedup", "tokens/s/GPU", "model TFLOP/s/GPU"]
    return table([*header, "memory, busiest rank", "fits"], rows)


def totals_table(data: dict) -> str:
    """What is computed by hand otherwise; a result of an older version lacks it."""
    plans = data["plans"]
    if any("tokens_per_s" not in plan for plan in plans):
        return ""
    rows = [
        ["tokens/s in all", *(f"{p['tokens_per_s']:,.0f}" for p in plans)],
        ["tokens a day", *(f"{1e-9 * p['tokens_per_day']:,.1f} billion" for p in plans)],
        ["GPU hours for 10^12 tokens", *(f"{p['gpu_hours_per_1e12_tokens']:,.0f}" for p in plans)],
        ["MFU", *(f"{significant(100 * p['mfu'])} %" for p in plans)],
        ["parameters", *(f"{significant(1e-9 * p['parameters'])} billion" for p in plans)],
        [
            "active a token",
            *(f"{significant(1e-9 * p['active_parameters'])} billion" for p in plans),
        ],
    ]
    step = (
        f"<p>A step: {data['global_batch_sequences']:,} sequences of {data['sequence_length']:,}, "
        f"that is {data['tokens_per_step']:,} tokens, on {data['num_ranks']:,} ranks.</p>"
    )
    return step + table(["in all", *(plan["name"] for plan in plans)], rows)


def phases_table(data: dict) -> str:
    plans = data["plans"]
    rows = []
    for name in ("forward", "backward", "update"):
        times = [
            {p["phase"]: p["time_s"] for p in plan["phases"] if p["pass"] == name} for plan in plans
        ]
        rows.append([name, *(duration(sum(time.values())) for time in times)])
        phases = sorted(set().union(*times), key=list(PHASES).index)
        rows += [[f"  {phase}", *(duration(t.get(phase, 0.0)) for t in times)] for phase in phases]
    return table(["exposed time in the step", *(plan["name"] for plan in plans)], rows)


def memory_table(data: dict) -> str:
    plans = data["plans"]
    items = list(dict.fromkeys(item for plan in plans for item in plan["memory"]["items"]))
    rows = [[item, *(size(p["memory"]["items"].get(item, 0)) for p in plans)] for item in items]
    rows.append(["peak", *(size(plan["memory"]["peak_bytes"]) for plan in plans)])
    return table(["busiest rank", *(plan["name"] for plan in plans)], rows)


def layer_table(data: dict) -> str:
    plans = data["plans"]
    links = list(dict.fromkeys(link for plan in plans for link in plan["traffic"]["by_link"]))
    rows = [
        ["forward", *(duration(plan["moe_layer"]["forward_s"]) for plan in plans)],
        ["backward", *(duration(plan["moe_layer"]["backward_s"]) for plan in plans)],
        ["sent, mean rank", *(size(p["traffic"]["sent_bytes_per_rank_mean"]) for p in plans)],
        ["sent, busiest rank", *(size(p["traffic"]["sent_bytes_per_rank_max"]) for p in plans)],
    ]
    rows += [
        [f"  over {link}", *(size(p["traffic"]["by_link"].get(link, 0)) for p in plans)]
        for link in links
    ]
    rows.append(["received, max / mean", *(f"{p['traffic']['imbalance']:.3f}" for p in plans)])
    return table(["one MoE layer", *(plan["name"] for plan in plans)], rows)


def drawings(prediction) -> str:
    """The figures as inline SVG; ids get a prefix each, since one page holds them all."""
    import matplotlib.pyplot as plt

    from figures import plans
    from style import use_style

    use_style()
    parts = []
    for name, draw in (
        ("Where the step goes", plans.phases),
        ("Memory", plans.memory),
        ("Traffic of one MoE layer", plans.traffic),
    ):
        figure = draw([prediction], name)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
        plt.close(figure)
        svg = stream.getvalue()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        prefix = f"f{len(parts)}-"
        svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}", svg)
        parts.append(f"<figure>{svg}</figure>")
    return "\n".join(parts)


def listing(title: str, lines: list[str]) -> str:
    if not lines:
        return f"<h2>{title}</h2><p>None.</p>"
    items = "".join(f"<li>{html.escape(line)}</li>" for line in dict.fromkeys(lines))
    return f"<h2>{title}</h2><ul>{items}</ul>"


def page(prediction, scenario: str | None) -> str:
    data = prediction.data
    name = html.escape(data["scenario"])
    source = (
        f"profile {html.escape(data['profile'])}, seed {data['seed']}, "
        f"headway {html.escape(data['version'])}"
    )
    unfit = [
        f"{plan['name']}: {plan['infeasible_because']}"
        for plan in data["plans"]
        if not plan["feasible"]
    ]
    unpriced = [f"{plan['name']}: {plan['because']}" for plan in data.get("unpriced", [])]
    warnings = [f"{plan['name']}: {text}" for plan in data["plans"] for text in plan["warnings"]]
    parts = [
        f"<h1>{name}: one training step</h1><p>{source}. Intervals hold the residuals of the curves "
        "and the spread of the routing.</p>",
        "<h2>Plans</h2>" + plans_table(data) + totals_table(data),
        listing("Plans that do not fit", unfit) if unfit else "",
        listing("Plans without a price", unpriced) if unpriced else "",
        "<h2>Figures</h2>" + drawings(prediction),
        "<h2>Phases</h2>" + phases_table(data),
        "<h2>One MoE layer</h2>" + layer_table(data),
        "<h2>Memory</h2>" + memory_table(data),
        listing("Warnings", warnings),
        listing("Assumptions", data["notes"]),
    ]
    if scenario is not None:
        parts.append(
            "<h2>Scenario</h2><details><summary>in full, every default written out</summary>"
            f"<pre>{html.escape(scenario)}</pre></details>"
        )
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
