#!/usr/bin/env python3
"""Draws result files of headway: python3 analysis/plot.py RESULT... -o FIGURE.png|svg.

`headway plot` calls this with a Python that has matplotlib. Exit code 2 for bad input.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while modules load

# ruff: noqa: E402
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import command
from command import BadInput

FORMATS = (".png", ".svg")


def parse_arguments() -> argparse.Namespace:
    parser = command.Parser(
        prog="headway plot", description="figures from result files (JSON or CSV)"
    )
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT")
    parser.add_argument("-o", "--out", type=Path, help="figure to write, .png or .svg")
    parser.add_argument("--figure", help="which figure; 'list' names them")
    parser.add_argument("--title", help="title of the figure")
    parser.add_argument("--ranks", help="of timelines, only these ranks: 0,5,8-11")
    parser.add_argument("--layers", help="of timelines, only these layers: 0-3")
    parser.add_argument(
        "--pass", dest="of_pass", choices=("forward", "backward", "update"), help="of timelines"
    )
    parser.add_argument("--plan", help="of timelines, only this plan")
    return parser.parse_args()


def chosen_figures(name: str | None):
    from figures import FIGURES

    if name is None:
        return FIGURES
    chosen = [figure for figure in FIGURES if figure.name == name]
    if not chosen:
        names = ", ".join(figure.name for figure in FIGURES)
        raise BadInput(f"--figure: unknown figure '{name}'; accepted: {names}")
    return chosen


def numbers(text: str, option: str) -> list[range]:
    """0,5,8-11 as ranges."""
    chosen = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdecimal() and len(end) < 10 for end in ends):
            raise BadInput(f"{option}: '{text}'; accepted: numbers and ranges, e.g. 0,5,8-11")
        chosen.append(range(int(ends[0]), int(ends[1]) + 1))
    return chosen


def choose_spans(results, arguments: argparse.Namespace):
    """Drops what --plan, --pass, --ranks and --layers leave out; other results stay as they are."""
    from results import Timeline

    timelines = [result for result in results if isinstance(result, Timeline)]
    if arguments.plan is not None:
        results = [r for r in results if r not in timelines or r.plan == arguments.plan]
        if timelines and not results:
            names = ", ".join(sorted({timeline.plan for timeline in timelines}))
            raise BadInput(f"--plan: '{arguments.plan}'; accepted: {names}")
    for timeline in timelines:
        if arguments.of_pass is not None:
            timeline.spans = [s for s in timeline.spans if s["pass"] == arguments.of_pass]
    for key, text in (("rank", arguments.ranks), ("layer", arguments.layers)):
        if text is None:
            continue
        wanted = numbers(text, f"--{key}s")
        for timeline in timelines:
            timeline.spans = [
                span for span in timeline.spans if any(span[key] in part for part in wanted)
            ]
            if not timeline.spans:
                raise BadInput(f"--{key}s: '{text}': the timeline has none of them")
    return results


def draw(arguments: argparse.Namespace):
    from results import load
    from style import use_style

    results = [result for path in arguments.results for result in load(path)]
    results = choose_spans(results, arguments)
    use_style()
    for kind in chosen_figures(arguments.figure):
        figure = kind.draw(results, arguments.title)
        if figure is not None:
            return figure
    wanted = f"figure '{arguments.figure}'" if arguments.figure else "any figure"
    raise BadInput(
        f"these results are not of the kind that {wanted} needs; hint: --figure list names them"
    )


def save(figure, out: Path, inputs: list[Path]) -> None:
    metadata = {"Date": None} if out.suffix == ".svg" else None
    command.write_whole(
        out,
        inputs,
        lambda file: figure.savefig(file, format=out.suffix[1:], metadata=metadata),
    )


def main() -> None:
    arguments = parse_arguments()
    if arguments.figure == "list":
        from figures import FIGURES

        for figure in FIGURES:
            print(f"  {figure.name:<16} {figure.summary}")
        return
    if not arguments.results:
        raise BadInput("no result file given; hint: headway plot --help shows the usage")
    if arguments.out is None:
        raise BadInput("no figure to write given; hint: -o figure.png")
    if arguments.out.suffix not in FORMATS:
        raise BadInput(f"{arguments.out}: unknown ending; accepted: {', '.join(FORMATS)}")
    save(draw(arguments), arguments.out, arguments.results)


if __name__ == "__main__":
    sys.exit(command.run(main))
