#!/usr/bin/env python3
"""docs/results/generated/validation_simulate.md has every plan of every shipped scenario, and explains what is far apart.

usage: simulate_document_test.py
"""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 3.0  # per cent
ROW = re.compile(r"^\| (\w+) \| (\w+) \| .* \| ([+-][\d.]+) % \|$", re.MULTILINE)
PLAN = re.compile(r"^ +- (?:\{)?name: (\w+)", re.MULTILINE)


def shipped_plans() -> set[tuple[str, str]]:
    found = set()
    for path in (ROOT / "scenarios").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        if "\nprofile:" in text:
            plans = text.partition("\nplans:")[2].partition("\nbaseline:")[0]
            found |= {(path.stem, name) for name in PLAN.findall(plans)}
    return found


class Document(unittest.TestCase):
    def setUp(self):
        self.text = (ROOT / "docs/results/generated/validation_simulate.md").read_text(
            encoding="utf-8"
        )
        table = self.text.partition("\n## ")[0]
        self.rows = {(m[1], m[2]): float(m[3]) for m in ROW.finditer(table)}

    def test_every_shipped_plan_is_in_the_table(self):
        self.assertGreater(len(shipped_plans()), 10)
        self.assertEqual(set(self.rows), shipped_plans())

    def test_every_plan_that_is_far_apart_has_its_phases(self):
        far = {
            f"## {s}, {p}: {gap:+.1f} %" for (s, p), gap in self.rows.items() if abs(gap) > LIMIT
        }
        self.assertEqual(far, set(re.findall(r"^## .*$", self.text, re.MULTILINE)))

    def test_it_is_linked(self):
        for page in ("README.md", "docs/reference/simulator.md"):
            self.assertIn("validation_simulate.md", (ROOT / page).read_text(encoding="utf-8"), page)


if __name__ == "__main__":
    unittest.main()
