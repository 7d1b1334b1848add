#!/usr/bin/env python3
"""headway validate on the shipped anchors and on anchors of one's own.

usage: validate_test.py HEADWAY
"""

import csv
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""

# At S = 4 MiB on 8 H100 the shipped curve has a point, at 2 MiB it has none.
TABLE = """\
exchanges:
  - name: mine
    profile: h100_public
    path: nvlink
    num_ranks: 8
    bytes: [2 MiB]
    time: [{time}]
    tolerance: 20 %
    source: my own run
    date: 2026-01-01
"""


def headway(*words):
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=60, check=False
    )


class Validate(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def own(self, time: str) -> str:
        path = self.folder / "mine.yaml"
        path.write_text(TABLE.format(time=time))
        return str(path)

    def test_the_shipped_anchors_fit_a_hundred_columns(self):
        result = headway("validate")
        self.assertIn(result.returncode, (0, 1), result.stderr)
        self.assertIn("whole training steps", result.stdout)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 100)

    def test_csv_holds_the_error_of_its_own_columns(self):
        rows = list(csv.DictReader(headway("validate", "--format", "csv").stdout.splitlines()))
        self.assertTrue(rows)
        for row in rows:
            ratio = float(row["predicted"]) / float(row["published"])
            self.assertAlmostEqual(ratio - 1.0, float(row["error"]), places=4, msg=row["anchor"])

    def test_exit_code_says_whether_an_anchor_is_beyond_its_tolerance(self):
        self.assertEqual(headway("validate", "--anchors", self.own("19 us")).returncode, 0)
        self.assertEqual(headway("validate", "--anchors", self.own("90 us")).returncode, 1)

    def test_bad_input_is_exit_code_two(self):
        for words in (("--anchors", "absent.yaml"), ("--format", "xml")):
            result = headway("validate", *words)
            self.assertEqual(result.returncode, 2, result.stdout)
            self.assertTrue(result.stderr)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    unittest.main()
