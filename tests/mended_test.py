#!/usr/bin/env python3
"""docs/results/mended.md names tests that exist: a GoogleTest `Suite.Name` (or `Suite.*`), a function of a Python test
`file_test.test_name`, a mode of scripts/test, a file of broken/ or bad/. What is not mended has no test and says so."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"


def rows():
    for number, line in enumerate((ROOT / "docs/results/mended.md").read_text().splitlines(), 1):
        if line.startswith("|") and not line.startswith(("|---", "| kind")):
            yield number, [cell.strip() for cell in line[1:-1].split("|")]


def known_tests():
    names = set()
    for file in TESTS.rglob("*.cpp"):
        for suite, name in re.findall(
            r"^TEST(?:_F|_P)?\((\w+),\s*(\w+)\)", file.read_text(), re.MULTILINE
        ):
            names |= {f"{suite}.{name}", f"{suite}.*"}
    for file in TESTS.rglob("*_test.py"):
        names |= {f"{file.stem}.{name}" for name in re.findall(r"def (test_\w+)", file.read_text())}
    script = (ROOT / "scripts/test").read_text()
    names |= {f"mode {name}" for name in re.findall(r"^mode_(\w+)\(\)", script, re.MULTILINE)}
    names |= {f"broken/{file.stem}" for file in (TESTS / "scenario/broken").glob("*.yaml")}
    return names | {
        f"bad/{file.stem}" for file in (TESTS / "measurements/logs/bad").glob("*.expected")
    }


class Mended(unittest.TestCase):
    def test_every_row_is_whole_and_names_tests_that_exist(self):
        known, count = known_tests(), 0
        for number, cells in rows():
            self.assertEqual(len(cells), 5, f"docs/results/mended.md:{number}: {cells}")
            now, tests = cells[3], re.findall(r"`([^`]+)`", cells[4])
            if now.startswith("**open**"):
                self.assertEqual(cells[4], "-", f"docs/results/mended.md:{number}")
                continue
            self.assertTrue(tests, f"docs/results/mended.md:{number}: no test is named")
            self.assertEqual(set(tests) - known, set(), f"docs/results/mended.md:{number}")
            count += 1
        self.assertGreater(count, 100)


if __name__ == "__main__":
    unittest.main()
