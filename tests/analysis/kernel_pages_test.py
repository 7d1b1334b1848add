#!/usr/bin/env python3
"""Pages of the kernels show the tables of the committed run, and of one run only.

usage: kernel_pages_test.py
"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "analysis" / "kernel_pages.py"
RUN = ROOT / "docs/results/kernels_h200.csv"
PAGES = sorted((ROOT / "docs/results").rglob("kernels*.md"))


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


class KernelPages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_pages_show_the_committed_run(self):
        result = run_script("--check", RUN, *PAGES)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_another_run_makes_the_pages_stale(self):
        """One median becomes 10 % larger: the page that shows it is named, and mended on request."""
        lines = RUN.read_text(encoding="utf-8").splitlines()
        header = lines[0].split(",")
        case = next(i for i, text in enumerate(lines) if ",experts_backward,hopper,C," in text)
        cells = lines[case].split(",")
        median = header.index("median_us")
        cells[median] = f"{1.1 * float(cells[median]):.3f}"
        lines[case] = ",".join(cells)
        changed = self.folder / "run.csv"
        changed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        page = self.folder / "page.md"
        page.write_text((ROOT / "docs/results/kernels_experts.md").read_text(encoding="utf-8"))
        stale = run_script("--check", changed, page)
        self.assertEqual((stale.returncode, stale.stdout.count("page.md")), (1, 1))
        self.assertEqual(run_script(changed, page).returncode, 0)
        self.assertEqual(run_script("--check", changed, page).returncode, 0)
        self.assertEqual(run_script("--check", RUN, page).returncode, 1)

    def test_lines_of_two_runs_are_refused(self):
        lines = RUN.read_text(encoding="utf-8").splitlines()
        cells = lines[-1].split(",")
        cells[lines[0].split(",").index("date")] = "2020-01-01T00:00:00Z"
        other = ",".join(cells)
        mixed = self.folder / "mixed.csv"
        mixed.write_text("\n".join([*lines, other]) + "\n", encoding="utf-8")
        result = run_script(mixed)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("2 runs", result.stderr)


if __name__ == "__main__":
    unittest.main()
