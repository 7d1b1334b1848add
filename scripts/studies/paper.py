#!/usr/bin/env python3
"""The paper's comparison: HP over EP for k = 2, 4, 8 on 4 and 8 GPUs, and which assumptions decide it.

usage: python3 scripts/studies/paper.py [-o FOLDER]   (headway on the PATH; default folder: paper_study)
Writes FOLDER/paper.csv and prints it as Markdown. Every number is `headway predict` on a variant of
scenarios/studies/paper.yaml; this script only edits that file's text and divides step times.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
PAPER, TUNED = "h200_paper_kernels", "h200_measured"
PLANS = {
    PAPER: ("paper_ep", "paper_hp", "paper_hp_double"),
    TUNED: ("tuned_ep", "tuned_ep_dedup", "tuned_hp", "tuned_hp_double"),
}
# baseline, plan, what the ratio says
RATIOS = (
    ("paper_ep", "paper_hp", "paper HP / paper EP"),
    ("paper_ep", "paper_hp_double", "paper HP, double / paper EP"),
    ("tuned_ep", "tuned_hp", "tuned HP / tuned EP"),
    ("tuned_ep", "tuned_hp_double", "tuned HP, double / tuned EP"),
    ("tuned_ep_dedup", "tuned_hp", "tuned HP / deduplicated EP"),
    ("paper_ep", "tuned_hp", "tuned HP / paper EP"),
    ("paper_ep", "tuned_hp_double", "tuned HP, double / paper EP"),
)
# version, best speedup of whole steps at equal quality, at doubled granularity
PUBLISHED = (("arXiv v1", "to 1.61", "1.11"), ("PMLR v306", "to 1.82", "1.08"))


def edit(text: str, *changes: tuple[str, str]) -> str:
    """Each pattern must match: a change that hits nothing would be a silent base case."""
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        if count == 0:
            raise SystemExit(f"paper.py: nothing matches {pattern!r}")
    return text


def experts(k: int) -> tuple[tuple[str, str], ...]:
    return (
        (r"num_experts: 128, top_k: \d+", f"num_experts: 128, top_k: {k}"),
        (r"num_experts: 256, top_k: \d+", f"num_experts: 256, top_k: {2 * k}"),
    )


def gpus(n: int) -> tuple[tuple[str, str], ...]:
    return (
        (r"(gpus_per_node|nics_per_node|group_size): \d+", rf"\1: {n}"),
        (r"num_heads: \d+", "num_heads: 8"),
    )


def scaled_kernel(profile: str, kernel: str, factor: float) -> str:
    """Text of a shipped profile with one kernel's rates times a factor."""
    text = (SCENARIOS / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8")
    begin = re.search(rf"^  {kernel}:\n", text, re.MULTILINE)
    end = re.compile(r"^  \w|^\w", re.MULTILINE).search(text, begin.end())
    block = re.sub(
        r"([\d.]+) (?=[MGT](?:FLOP|B)/s)",
        lambda match: f"{float(match[1]) * factor:.6g} ",
        text[begin.end() : end.start()],
    )
    return text[: begin.end()] + block + text[end.start() :]


def scaled_overheads(profile: str, **values: str) -> str:
    text = (SCENARIOS / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8")
    return edit(text, *((rf"  {key}: [\d.]+ us", f"  {key}: {v}") for key, v in values.items()))


class Study:
    def __init__(self, folder: Path):
        self.folder = folder
        self.base = (SCENARIOS / "studies" / "paper.yaml").read_text(encoding="utf-8")
        self.rows: list[dict] = []
        self.scratch = tempfile.TemporaryDirectory()

    def steps(self, text: str, profiles: dict[str, str]) -> dict[str, float]:
        """Step time of every plan of a scenario text; `profiles`: changed texts by name."""
        scenario = Path(self.scratch.name) / "variant.yaml"
        scenario.write_text(text, encoding="utf-8")
        times = {}
        for profile, plans in PLANS.items():
            source = profile
            if profile in profiles:
                source = str(Path(self.scratch.name) / f"{profile}.yaml")
                Path(source).write_text(profiles[profile], encoding="utf-8")
            words = [word for plan in plans for word in ("--plan", plan)]
            presets = ["--presets", str(SCENARIOS)]
            command = ["headway", "predict", str(scenario), "--profile", source, "--format", "json"]
            result = subprocess.run(
                command + words + presets, capture_output=True, text=True, check=False
            )
            if result.returncode not in (0, 1):  # 1: a plan does not fit; its time stands
                raise SystemExit(result.stderr)
            for plan in json.loads(result.stdout)["plans"]:
                times[plan["name"]] = plan["step_time_s"]
        return times

    def add(self, part: str, assumption: str, k: int, n: int, *changes, profiles=None):
        text = edit(self.base, *experts(k), *gpus(n), *changes)
        times = self.steps(text, profiles or {})
        for baseline, plan, meaning in RATIOS:
            self.rows.append(
                {
                    "part": part,
                    "assumption": assumption,
                    "gpus": n,
                    "k": k,
                    "ratio": meaning,
                    "baseline_step_s": f"{times[baseline]:.6g}",
                    "step_s": f"{times[plan]:.6g}",
                    "speedup": f"{times[baseline] / times[plan]:.4g}",
                }
            )

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / ".paper.csv.tmp"
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        temporary.replace(self.folder / "paper.csv")


def link(bandwidth: str) -> tuple[str, str]:
    return (r"bandwidth: \d+ GB/s", f"bandwidth: {bandwidth}")


def fused(plan: str) -> tuple[str, str]:
    return (
        rf"(name: {plan}\n(?:    .*\n)*?)    implementation: unfused\n",
        r"\1    implementation: fused\n",
    )


def run_sensitivity(study: Study) -> None:
    def vary(assumption: str, *changes, **profiles):
        study.add("sensitivity", assumption, 4, 4, *changes, **profiles)

    vary("as stated")
    for bandwidth in (200, 100, 50, 25, 12, 6):
        vary(f"link of {bandwidth} GB/s a GPU instead of 450", link(f"{bandwidth} GB/s"))
    vary("EP without its unfused moves and syncs", fused("paper_ep"))
    vary("HP without its unfused moves", fused("paper_hp"), fused("paper_hp_double"))
    half = {PAPER: scaled_kernel(PAPER, "grouped_gemm", 0.5)}
    vary("EP's grouped GEMM at half the rate", profiles=half)
    fast = {PAPER: scaled_kernel(PAPER, "fused_expert", 2.0)}
    vary("the paper's experts at twice the rate", profiles=fast)
    fast = {PAPER: scaled_kernel(PAPER, "fused_expert", 4.0)}
    vary("the paper's experts at four times the rate", profiles=fast)
    slow = {p: scaled_overheads(p, launch="30 us", host_sync="200 us") for p in PLANS}
    vary("30 us a launch, 200 us a host sync", profiles=slow)
    vary("2 Ki tokens a GPU instead of 16 Ki", (r"sequences_per_rank: 8", "sequences_per_rank: 1"))
    for exponent in (0.5, 1.0):
        skew = (r"skew: \{kind: none\}", f"skew: {{kind: zipf, exponent: {exponent}}}")
        vary(f"router skew, Zipf {exponent}", skew)
    for heads in (4, 16):
        vary(f"{heads} heads of width {1024 // heads}", (r"num_heads: 8", f"num_heads: {heads}"))
    for layers, f in ((20, 768), (40, 384)):
        vary(
            f"{layers} layers of f = {f}, equal parameters",
            (r"preset: paper_base", f"preset: paper_base, num_layers: {layers}"),
            (r"expert_width: 768", f"expert_width: {f // 2}"),
            (r"expert_width: 1536", f"expert_width: {f}"),
        )


def markdown(rows: list[dict]) -> str:
    """Two tables, k and GPUs with the published numbers first, then the sensitivities."""
    columns = [meaning for *_, meaning in RATIOS]
    titles = ["doubled" if "double" in column else column for column in columns]
    lines = []
    for part, title in (("k", "EP step / HP step"), ("sensitivity", "changed, at k = 4, 4 GPUs")):
        lines += ["| " + " | ".join([title, *titles]) + " |", "|---|" + "---:|" * len(columns)]
        if part == "k":
            for version, base, double in PUBLISHED:
                cells = [base, double] + [""] * (len(columns) - 2)
                lines.append(f"| published, {version} | " + " | ".join(cells) + " |")
        keys = list(
            dict.fromkeys((r["assumption"], r["gpus"], r["k"]) for r in rows if r["part"] == part)
        )
        for key in keys:
            label = f"k = {key[2]}, {key[1]} GPUs" if part == "k" else key[0]
            found = {
                r["ratio"]: r["speedup"]
                for r in rows
                if r["part"] == part and (r["assumption"], r["gpus"], r["k"]) == key
            }
            cells = [f"{float(found[column]):.2f}" for column in columns]
            lines.append("| " + " | ".join([label, *cells]) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    words = sys.argv[1:]
    if words and (len(words) != 2 or words[0] != "-o"):
        print(__doc__, file=sys.stderr)
        return 2
    study = Study(Path(words[1] if words else "paper_study"))
    for n in (4, 8):
        for k in (2, 4, 8):
            study.add("k", "as stated", k, n)
    run_sensitivity(study)
    study.write()
    print(markdown(study.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
