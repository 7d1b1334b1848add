"""The sections of a prediction: what holds plans against each other, and each plan in detail."""

from __future__ import annotations

from page.tables import (
    Compared,
    Html,
    Row,
    Unit,
    amount,
    comparison,
    duration,
    joined,
    markup,
    number,
    records,
    size,
    table,
    time,
)
from page.timeline import swatch
from palette import PHASES

_PASSES = ("forward", "backward", "update")


def _interval(plan: dict) -> Html:
    low, high = plan["step_time_interval_s"]
    unit = time(high, plan["step_time_s"])
    return joined(unit.of(low), " to ", unit.with_name(high))


def _plan_row(plan: dict, baseline: bool) -> Row:
    memory = plan["memory"]
    capacity = memory["capacity_bytes"]
    share = f" ({100 * memory['peak_bytes'] / capacity:.0f} %)" if capacity else ""
    speedup = number(plan["speedup_vs_baseline"], f"{plan['speedup_vs_baseline']:.2f}x")
    undecided = bool(plan.get("undecided"))
    marks = " data-baseline" * baseline + " data-undecided" * undecided
    return Row(
        [
            plan["name"] + " (baseline)" * baseline,
            duration(plan["step_time_s"]),
            _interval(plan),
            joined(speedup, " (undecided)" * undecided),
            number(plan["tokens_per_s_per_gpu"], f"{plan['tokens_per_s_per_gpu']:,.0f}"),
            number(plan["model_tflops_per_gpu"]),
            joined(amount(memory["peak_bytes"]), share),
            "yes" if plan["feasible"] else Html("<b>no</b>"),
        ],
        f' data-plan="{markup(plan["name"])}"{marks}',
    )


def plans_table(data: dict) -> Html:
    rows = [_plan_row(plan, plan["name"] == data["baseline"]) for plan in data["plans"]]
    heads = ["plan", "step", "90 % interval", "speedup", "tokens/s/GPU", "model TFLOP/s/GPU"]
    return table("plans", "Plans", [*heads, "memory, busiest rank", "fits"], rows)


def rival_table(rival: dict) -> Html:
    rows = [
        [
            answer["plan"],
            number(answer["speedup"], f"{answer['speedup']:.2f}x"),
            "yes" if answer["undecided"] else "no",
        ]
        for answer in rival["plans"]
    ]
    fits = "" if rival["feasible"] else ", which does not fit"
    caption = joined(
        f"Against {rival['plan']} of {rival['scenario']}{fits}: ",
        number(rival["tokens_per_s"], f"{rival['tokens_per_s']:,.0f}"),
        " tokens/s",
    )
    return table("rival", caption, ["plan", "speedup in tokens/s", "undecided"], rows)


# What is computed by hand otherwise: key, words, unit.
_TOTALS = (
    ("tokens_per_s", "tokens/s in all", Unit()),
    ("tokens_per_day", "tokens a day", Unit(1e-9, "billion")),
    ("gpu_hours_per_1e12_tokens", "GPU hours for 10^12 tokens", Unit()),
    ("mfu", "MFU", Unit(100, "%")),
    ("parameters", "parameters", Unit(1e-9, "billion")),
    ("active_parameters", "active a token", Unit(1e-9, "billion")),
)


def totals_table(plans: list[dict]) -> Html:
    rows = [
        Compared(words, [plan.get(key) for plan in plans], unit)
        for key, words, unit in _TOTALS
        if any(key in plan for plan in plans)
    ]
    rows.append(
        Compared(
            "waits for the host in a step",
            waits := [plan.get("launch_wait_s") for plan in plans],
            time(*(wait for wait in waits if wait is not None)),
        )
    )
    return comparison("totals", "Rates and parameters", ["quantity"], plans, rows, sortable=False)


def phases_table(plans: list[dict]) -> Html:
    times = [{(p["pass"], p["phase"]): p["time_s"] for p in plan["phases"]} for plan in plans]
    keys = sorted(
        set().union(*times), key=lambda key: (_PASSES.index(key[0]), list(PHASES).index(key[1]))
    )
    rows = [
        Compared(joined(swatch(phase), phase), [t.get((name, phase)) for t in times], more=(name,))
        for name, phase in keys
    ]
    sums = [
        Compared(
            "sum",
            [sum(time for (of, _), time in t.items() if of == name) for t in times],
            more=(name,),
        )
        for name in _PASSES
        if any(of == name for of, _ in keys)
    ]
    unit = time(*(seconds for of in times for seconds in of.values()))
    caption = unit.head("Exposed time in the step")
    return comparison("phases", caption, ["phase", "pass"], plans, rows, sums, unit)


def layer_table(plans: list[dict]) -> Html:
    links = list(dict.fromkeys(link for plan in plans for link in plan["traffic"]["by_link"]))
    layers, traffic = [p["moe_layer"] for p in plans], [p["traffic"] for p in plans]

    def row(label: str, kind, values: list) -> Compared:
        return Compared(label, values, kind(*(value for value in values if value is not None)))

    rows = [row(name, time, [layer[f"{name}_s"] for layer in layers]) for name in _PASSES[:2]]
    for name in _PASSES[:2]:
        for index, end in enumerate(("low", "high")):
            ends = [layer.get(f"{name}_interval_s", (None, None))[index] for layer in layers]
            rows.append(row(f"{name}, {end} end of its interval", time, ends))
    for which in ("mean", "max"):
        sent = [t[f"sent_bytes_per_rank_{which}"] for t in traffic]
        rows.append(row(f"sent, {'busiest' if which == 'max' else which} rank", size, sent))
    rows += [
        row(f"over {link}, mean rank", size, [t["by_link"].get(link) for t in traffic])
        for link in links
    ]
    rows.append(Compared("received rows, max / mean", [t["imbalance"] for t in traffic], Unit()))
    return comparison("layer", "One MoE layer", ["quantity"], plans, rows, sortable=False)


def memory_table(plans: list[dict]) -> Html:
    memory = [plan["memory"] for plan in plans]
    items = list(dict.fromkeys(item for of in memory for item in of["items"]))
    rows = [Compared(item, [of["items"].get(item) for of in memory]) for item in items]
    foot = [
        Compared(words, [of.get(key) for of in memory])
        for key, words in (
            ("peak_bytes", "peak"),
            ("allocated_bytes", "tensors of the peak"),
            ("reserve_bytes", "reserve of the peak"),
            ("capacity_bytes", "capacity"),
        )
        if any(key in of for of in memory)
    ]
    unit = size(*(of["peak_bytes"] for of in memory))
    caption = unit.head("Memory of the busiest rank")
    return comparison("memory", caption, ["item"], plans, rows, foot, unit)


def _pipeline(name: str, pipeline: dict) -> Html:
    facts = records(
        f"{name}-pipeline",
        "Pipeline",
        [{key: value for key, value in pipeline.items() if key != "ranks"}],
        sortable=False,
    )
    ranks = [{"rank": index, **rank} for index, rank in enumerate(pipeline["ranks"])]
    return joined(facts, records(f"{name}-ranks", "Ranks of the pipeline", ranks))


def _stages(name: str, memory: dict) -> Html:
    stages = [
        {
            "stage": index,
            **{key: value for key, value in stage.items() if key != "items"},
            **{f"{item}_bytes": value for item, value in stage["items"].items()},
        }
        for index, stage in enumerate(memory["stages"])
    ]
    caption = joined("Memory of each stage; the busiest is ", number(memory["stage"]))
    return records(f"{name}-stages", caption, stages)


def details(plan: dict, index: int) -> Html:
    """All that is known of one plan; open without script."""
    name = f"plan-{index}"
    phases = [
        {"phase": joined(swatch(cost["phase"]), cost["phase"])}
        | {key: value for key, value in cost.items() if key != "phase"}
        for cost in plan["phases"]
    ]
    parts = [
        Html(f'<details class="plan" open data-plan="{markup(plan["name"])}"><summary>'),
        plan["name"],
        Html("</summary>"),
        records(f"{name}-phases", f"Phases of {plan['name']}", phases),
    ]
    if "pipeline" in plan:
        parts.append(_pipeline(name, plan["pipeline"]))
    if "stage" in plan["memory"] and "stages" in plan["memory"]:
        parts.append(_stages(name, plan["memory"]))
    return joined(*parts, Html("</details>"))
