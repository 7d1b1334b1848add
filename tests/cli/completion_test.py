#!/usr/bin/env python3
"""headway completion: bash offers every verb, every option of --help, preset names and files; zsh and fish, where they
are here, offer the same.

usage: completion_test.py HEADWAY
"""

import os
import pty
import re
import select
import shutil
import signal
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


def complete(*words: str, folder: str = "/", program: str = "") -> list[str]:
    """What bash offers when the last word is to be completed."""
    script = """
        source <("$1" completion bash) || exit 1
        shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _headway
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(
        ["bash", "-c", script, "bash", HEADWAY, program or HEADWAY, *words],
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

    def test_programs_without_verbs(self):
        program = str(Path(HEADWAY).with_name("headway-run"))
        offered = set(complete("--", program=program))
        shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
        self.assertEqual(offered, set(re.findall(r"--[a-z][a-z-]+(?= )", shown.stdout)) & offered)
        self.assertLessEqual({"--plan", "--version", "--help"}, offered)

    @unittest.skipUnless(shutil.which("fish"), "no fish")
    def test_fish(self):
        for typed, offered in (
            ("headway swe", "sweep\tevery combination of values of some keys, as CSV"),
            ("headway help pred", "predict\t"),
            ("headway sweep --sim", "--simulate\t"),
            ("headway predict --profile h100", "h100_public"),
            ("headway-run --pl", "--plan\t"),
        ):
            script = f"headway completion fish | source; complete -C '{typed}'"
            found = in_path(["fish", "-c", script])
            self.assertTrue(
                any(line.startswith(offered) for line in found.splitlines()), (typed, found)
            )

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh(self):
        for typed, offered in (
            ("headway swe", "headway sweep"),
            ("headway help pred", "headway help predict"),
            ("headway sweep --sim", "headway sweep --simulate"),
            ("headway predict --profile h200_mea", "headway predict --profile h200_measured"),
            ("headway-run --pla", "headway-run --plan"),
        ):
            self.assertIn(offered, zsh_line(typed), typed)


def in_path(words: list[str]) -> str:
    """Their output, with the folder of headway at the head of the PATH."""
    environment = {**os.environ, "PATH": f"{Path(HEADWAY).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=True, env=environment
    ).stdout


def zsh_line(typed: str) -> str:
    """The command line of an interactive zsh after TAB: `: [` before it and `]` behind show it."""
    child, terminal = pty.fork()
    if child == 0:
        path = f"{Path(HEADWAY).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "TERM": "dumb", "PATH": path}
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment)

    def until(mark: str) -> str:
        seen = ""
        while mark not in seen and select.select([terminal], [], [], 20)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
        return seen

    setup = "unsetopt zle_bracketed_paste; PS1='rea''dy> '; autoload -U compinit; compinit -u -D; "
    os.write(terminal, (setup + "source <(headway completion zsh)\n").encode())
    until("ready> ")
    os.write(terminal, f"{typed}\t".encode())
    os.write(terminal, b"\x01print -r '[\x05]'\n")
    seen = until("]\r\n")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)
    return seen


if __name__ == "__main__":
    HEADWAY = str(Path(sys.argv[1]).resolve())
    if not shutil.which("bash"):
        print("bash is not here: completion not tested")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
