"""One self-contained HTML page of a prediction: tables that a browser without script shows in full, and a script that
sorts them, holds two plans against each other and chooses a point of a sweep."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from page import sections, sweep
from page.tables import duration, joined, markup, number
from page.timeline import hatches, timelines


def _inlined(name: str) -> tuple[str, str]:
    """A file beside this one, and the source by which the page's policy knows it."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"'sha256-{digest}'"


def _listing(name: str, title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{markup(line)}</li>" for line in dict.fromkeys(lines))
    inside = f"<ul>{items}</ul>" if lines else "<p>None.</p>"
    return f'<section id="{name}"><h2>{title}</h2>{inside}</section>'


def _facts(data: dict) -> str:
    """What was predicted, for whoever is sent the page."""
    facts = {word: data[word] for word in ("model", "cluster", "device") if data.get(word)}
    for key, word in (
        ("num_ranks", "ranks"),
        ("global_batch_sequences", "sequences a step"),
        ("sequence_length", "tokens a sequence"),
        ("tokens_per_step", "tokens a step"),
    ):
        if key in data:
            facts[word] = number(data[key], f"{data[key]:,}")
    facts["scenario"], facts["profile"] = data["scenario"], data["profile"]
    facts["made by"] = joined(f"headway {data['version']}, seed ", number(data["seed"]))
    pairs = "".join(f"<div><dt>{key}</dt><dd>{markup(facts[key])}</dd></div>" for key in facts)
    return f'<dl class="facts">{pairs}</dl>'


def _answer(data: dict) -> str:
    fitting = [plan for plan in data["plans"] if plan["feasible"]]
    if not fitting:
        return '<p class="answer"><b>No plan fits into memory.</b></p>'
    best = min(fitting, key=lambda plan: plan["step_time_s"])
    speedup = f", {best['speedup_vs_baseline']:.2f}x of {data['baseline']}"
    baseline = best["name"] == data["baseline"]
    noise = "; the difference is within the noise" if best.get("undecided") else ""
    return (
        f'<p class="answer">Fastest plan that fits: <b>{markup(best["name"])}</b>, '
        f"{duration(best['step_time_s'])} a step"
        f"{markup(' (the baseline)' if baseline else speedup + noise)}.</p>"
    )


def _controls(data: dict) -> str:
    """Hidden until the script shows them: without it they would do nothing."""
    names = [markup(plan["name"]) for plan in data["plans"]]
    options = "".join(f'<option value="{name}">{name}</option>' for name in names)
    baseline = next((i for i, p in enumerate(data["plans"]) if p["name"] == data["baseline"]), 0)
    return (
        '<form class="controls" id="choice" hidden aria-label="plans to compare">'
        '<p><label for="plan">Plan</label> <select id="plan"><option value="">all</option>'
        f'{options}</select> <label for="against">against</label> <select id="against" data-baseline="{baseline}">{options}</select> '
        '<output id="verdict" aria-live="polite"></output></p></form>'
    )


def _sections(data: dict, points, scenario: str | None) -> list[str]:
    plans = data["plans"]
    unfit = [f"{p['name']}: {p['infeasible_because']}" for p in plans if not p["feasible"]]
    unpriced = [f"{p['name']}: {p['because']}" for p in data.get("unpriced", [])]
    warnings = [f"{plan['name']}: {text}" for plan in plans for text in plan["warnings"]]
    parts = [
        sections.plans_table(data),
        "<p>Intervals hold the residuals of the curves and the spread of the routing.</p>",
        sections.rival_table(data["against"]) if "against" in data else "",
        _listing("unfit", "Plans that do not fit", unfit) if unfit else "",
        _listing("unpriced", "Plans without a price", unpriced) if unpriced else "",
        _controls(data),
        '<section id="where"><h2>Where the step goes</h2>',
        timelines(data),
        sections.phases_table(plans) + "</section>",
        sweep.section(points) if points else "",
        "<section id='more'><h2>Rates, layer and memory</h2>",
        sections.totals_table(plans),
        sections.layer_table(plans),
        sections.memory_table(plans) + "</section>",
        "<section id='details'><h2>Each plan in detail</h2>",
        *(sections.details(plan, index) for index, plan in enumerate(plans)),
        "</section>",
        _listing("warnings", "Warnings", warnings),
        _listing("assumptions", "Assumptions", data["notes"]),
    ]
    if scenario is not None:
        parts.append(
            "<h2>Scenario</h2><details><summary>in full, every default written out</summary>"
            f'<pre tabindex="0">{markup(scenario)}</pre></details>'
        )
    return parts


def page(data: dict, points, scenario: str | None) -> str:
    """`data` is the JSON of headway predict, `points` a sweep or None."""
    model, cluster = data.get("model"), data.get("cluster")
    title = f"{model} on {cluster}" if model and cluster else data["scenario"]
    (style, style_source), (script, script_source) = _inlined("page.css"), _inlined("page.js")
    policy = f"default-src 'none'; style-src {style_source}; script-src {script_source}; base-uri 'none'; form-action 'none'"
    body = "\n".join(_sections(data, points, scenario))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{markup(title)}: one training step</title>\n<style>{style}</style></head>\n"
        f"<body>{hatches()}\n<header><h1>{markup(title)}: one training step</h1>\n"
        f"{_facts(data)}{_answer(data)}</header>\n<main>\n{body}\n</main>\n"
        f"<script>{script}</script></body></html>\n"
    )
