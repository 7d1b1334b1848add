"""What each test of the lab asks first: may a lab be built here?"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SKIPPED = 77


def run_or_skip(lab, text, *options):
    """Runs the tests of the program, or ends it as skipped; `text`: a cluster, or what the options make of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lab.yaml"
        file.write_text(text)
        command = [lab, *options, str(file), "--quiet", "--", "true"]
        done = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)
    if done.returncode != 0:
        print("skipped: no lab can be built here: " + done.stderr.strip())
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1])
