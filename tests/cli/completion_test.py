#!/usr/bin/env python3
"""headway completion: bash offers every verb, every option of --help, preset names and files.

usage: completion_test.py HEADWAY
"""

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HEADWAY = ""


def headway(*words):
    return subprocess.run(
        [HEADWAY, *words], capture_output=True, text=True, timeout=60, check=False
    ).stdout


def verbs() -> list[str]:
    lines = headway("--help").splitlines()
    return [match[1] for line in lines if (match := re.match(r"  ([a-z]+) {2,}", line))]


def complete(*words: str, folder: str = "/") -> list[str]:
    """What bash offers when the last word is to be completed."""
    script = """
        source <("$1" completion bash) || exit 1
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _headway
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(
        ["bash", "-c", script, "bash", HEADWAY, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=folder,
    )
    return [line for line in result.stdout.splitlines() if line]


class Completion(unittest.TestCase):
    def test_every_verb(self):
        self.assertIn("sweep", verbs())
        self.assertLessEqual(set(verbs()), set(complete("")))
        self.assertLessEqual(set(verbs()), set(complete("help", "")))
        self.assertEqual(complete("swe"), ["sweep"])

    def test_every_option_of_every_verb(self):
        for verb in verbs():
            text = headway(verb, "--help")
            shown = text[text.index("Options:") : text.find("Examples:")]
            options = set(re.findall(r"^  (?:-\w \[ )?(--[a-z][a-z0-9-]*)", shown, re.MULTILINE))
            self.assertIn("--help", options)
            offered = set(complete(verb, "-"))
            usage = text.splitlines()[0]
            plain = {option for option in options - offered}
            # Only those that a plain word fills are not offered: a file, and arguments of a script.
            most = 2 if "[ARGUMENT...]" in usage else 1
            self.assertLessEqual(len(plain), most, (verb, plain, usage))
            self.assertLessEqual(offered - {"-h", "-o", "-v"}, options, verb)
        self.assertEqual(complete("sweep", "--sim"), ["--simulate"])
        self.assertIn("-o", complete("sweep", "-"))

    def test_presets_and_files(self):
        self.assertIn("h100_public", complete("predict", "--profile", "h100"))
        self.assertIn("dgx_h100", complete("alltoall", "--cluster", ""))
        self.assertIn("profiles", complete("list", ""))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "my scenario.yaml").write_text("")
            self.assertEqual(complete("predict", "my", folder=folder), ["my scenario.yaml"])

    def test_zsh_loads_bashcompinit_first(self):
        text = headway("completion", "zsh")
        self.assertTrue(text.startswith("autoload -U +X bashcompinit"))
        self.assertTrue(text.endswith(headway("completion", "bash")))


if __name__ == "__main__":
    HEADWAY = str(Path(sys.argv[1]).resolve())
    if not shutil.which("bash"):
        print("bash is not here: completion not tested")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
