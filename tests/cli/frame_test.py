#!/usr/bin/env python3
"""The frame of the command line: help, version, exit codes, messages, result files, pipes.

usage: frame_test.py HEADWAY
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""


def headway(*words, **options):
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=60, check=False, **options
    )


def verbs() -> list[str]:
    lines = headway("--help").stdout.splitlines()
    return [match[1] for line in lines if (match := re.match(r"  ([a-z]+) {2,}", line))]


class Frame(unittest.TestCase):
    def expect_bad_input(self, result, *fragments):
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertRegex(result.stderr, r"\Aheadway: error: ")
        for fragment in fragments:
            self.assertIn(fragment, result.stderr)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), len(set(lines)), "a message was printed twice")

    def test_help_teaches(self):
        result = headway("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for text in ("Expert Parallel", "Head Parallel", "Usage:", "Exit codes"):
            self.assertIn(text, result.stdout)
        examples = [line for line in result.stdout.splitlines() if line.startswith("  headway ")]
        self.assertGreaterEqual(len(examples), 3)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 100)

    def test_every_verb_explains_itself(self):
        self.assertIn("predict", verbs())
        for verb in verbs():
            for words in ((verb, "--help"), ("help", verb)):
                result = headway(*words)
                self.assertEqual((result.returncode, result.stderr), (0, ""), words)
                self.assertTrue(result.stdout.startswith(f"Usage: headway {verb}"), words)
                self.assertIn("Options", result.stdout)

    def test_every_verb_refuses_an_unknown_option(self):
        for verb in verbs():
            self.expect_bad_input(headway(verb, "--no-such-option"), f"headway {verb}")

    def test_version_names_the_build(self):
        result = headway("--version")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, r"\Aheadway \d+\.\d+\.\d+(\+[0-9a-f]+(-dirty)?)?\n\Z")

    def test_no_verb_prints_the_help_as_an_error(self):
        result = headway()
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertIn("Usage:", result.stderr)

    def test_typos_get_a_suggestion(self):
        self.expect_bad_input(headway("predcit"), "did you mean 'headway predict'?")
        self.expect_bad_input(headway("predict", "--fromat", "json"), "did you mean '--format'?")
        self.expect_bad_input(headway("xyzzy"), "accepted: ", "headway --help")

    def test_a_missing_value_and_too_many_words_are_bad_input(self):
        self.expect_bad_input(headway("predict", "--format"), "--format")
        self.expect_bad_input(headway("list", "models", "clusters"), "too many words")

    def test_a_missing_scenario_is_bad_input(self):
        self.expect_bad_input(headway("predict"), "no scenario given", "headway predict --help")
        self.expect_bad_input(headway("predict", "/nonexistent/s.yaml"), "/nonexistent/s.yaml")


class Output(unittest.TestCase):
    def test_a_closed_pipe_is_no_error(self):
        reader, writer = os.pipe()
        os.close(reader)
        result = subprocess.run(
            [HEADWAY, "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
        )
        os.close(writer)
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [HEADWAY, "--help"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
            )
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"No space left", result.stderr)

    def test_plot_without_results_says_what_is_missing(self):
        result = headway("plot")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"\Aheadway: error: ")

    def test_plot_without_matplotlib_says_how_to_get_it(self):
        # A python3 that fails on import stands first on the PATH; the system's may still work.
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder, "python3")
            python.write_text("#!/bin/sh\nexit 1\n")
            python.chmod(0o755)
            result = headway("plot", "--figure", "list", env={"PATH": folder})
        if result.returncode != 0:
            self.assertEqual(result.returncode, 2)
            self.assertIn("python3-matplotlib", result.stderr)
        else:
            self.assertIn("phases", result.stdout)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    unittest.main()
