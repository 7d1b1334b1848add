"""What the tests of headway calibrate share: the program, its inputs, and a folder of their own."""

import os
import subprocess
import sys
import tempfile
import unittest

HEADWAY = sys.argv.pop(1)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCENARIO = os.path.join(ROOT, "scenarios", "cpu_small.yaml")
LOGS = os.path.join(ROOT, "tests", "measurements", "logs")


class InAFolder(unittest.TestCase):
    """A folder of its own, and the name of the profile to write there."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = os.path.join(self.folder.name, "mine.yaml")

    def tearDown(self):
        self.folder.cleanup()

    def headway(self, *words):
        return subprocess.run([HEADWAY, *words], capture_output=True, text=True, timeout=300)
