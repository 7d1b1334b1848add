#!/usr/bin/env python3
"""An installed headway needs nothing of the tree that it was built from. The build is installed, the prefix is moved, and
every verb and program runs there while empty folders are mounted over the source tree and the build; then parts of the
moved prefix are taken away, and each must be missed.
usage: install_test.py BUILD_FOLDER"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BUILD = Path(sys.argv.pop(1)).resolve()
SOURCE = Path(__file__).resolve().parents[1]
# Runs a command in a mount namespace of its own, where source tree and build are empty folders.
HIDE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
HIDE += [
    'for f in "$1" "$2"; do [ ! -d "$f" ] || mount -t tmpfs none "$f"; done; shift 2; exec "$@"'
]
HIDE += ["sh", str(SOURCE), str(BUILD)]
TEMPORARY = Path(tempfile.gettempdir()).resolve()
CAN_HIDE = not any(TEMPORARY.is_relative_to(folder) for folder in (SOURCE, BUILD)) and (
    subprocess.run([*HIDE, "true"], capture_output=True).returncode == 0
)
# What a user without headway in the environment has; the build's own python3 and its matplotlib stay.
ENVIRONMENT = {
    key: os.environ[key] for key in ("PATH", "HOME", "LANG", "PYENV_ROOT") if key in os.environ
}

TESTS = Path(__file__).parent
COMMANDS = """\
predict paper_4gpu.yaml --format json -o result.json
explain paper_4gpu.yaml --plan ep_naive --phase dispatch
simulate paper_4gpu.yaml --layers 1 --trace trace.json.gz
alltoall --matrix bytes.csv --cluster dgx_h100
matrix paper_4gpu.yaml --plan ep_naive -o matrix.csv
sweep paper_4gpu.yaml --axis model.moe.top_k=2,4 -o all.csv
sweep paper_4gpu.yaml --axis model.moe.top_k=2,4 --shard 0/2 -o s0.csv
sweep paper_4gpu.yaml --axis model.moe.top_k=2,4 --shard 1/2 -o s1.csv
merge s0.csv s1.csv -o merged.csv
best paper_4gpu.yaml
calibrate --from-nccl-tests log.txt --base h100_public -o mine.yaml
import top1_64_experts.log --cluster dgx_h100 -o job.yaml
predict job.yaml --profile h100_public
validate
show paper_4gpu.yaml
list
report paper_4gpu.yaml --sweep all.csv -o report.html
completion fish""".splitlines()
SMALL = "--tokens 32 --ranks 2"
RUN = f"cpu_small.yaml {SMALL} --plan ep_naive --repeats 1 -o m.csv"
VERIFY = f"verify other/cpu_small.yaml --profile gpu.yaml --measured m.csv {SMALL}"


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        subprocess.run(
            ["cmake", "--install", BUILD, "--prefix", root / "first"],
            check=True,
            capture_output=True,
        )
        cls.prefix = root / "moved"
        (root / "first").rename(cls.prefix)
        cls.work = root / "work"
        shutil.copytree(cls.prefix / "share/headway/scenarios/studies", cls.work)
        for name in ("paper_4gpu.yaml", "cpu_small.yaml"):
            shutil.copy(cls.prefix / "share/headway/scenarios" / name, cls.work)
        (cls.work / "bytes.csv").write_text("0,1,2,3,4,5,6,7\n" * 8)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_program(self, program, *words):
        return subprocess.run(
            [*(HIDE if CAN_HIDE else []), self.prefix / "bin" / program, *words],
            cwd=self.work,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )

    def check(self, program, *words):
        done = self.run_program(program, *words)
        self.assertEqual(done.returncode, 0, f"{program} {' '.join(words)}: {done.stderr}")
        return done.stdout

    def verbs(self):
        return set(re.findall(r"^  ([a-z]+) {2,}", self.check("headway", "--help"), re.MULTILINE))

    @unittest.skipUnless(CAN_HIDE, "no user namespaces, or a temporary folder inside")
    def test_source_tree_and_build_are_out_of_sight(self):
        for folder in (SOURCE, BUILD):
            seen = subprocess.run([*HIDE, "ls", folder], capture_output=True, text=True)
            self.assertNotIn("CMake", seen.stdout)
            self.assertIn("CMake", " ".join(os.listdir(folder)))

    def test_every_program_and_verb_has_its_help(self):
        self.assertTrue(
            (self.prefix / "share/headway/analysis/recorder/headway_recorder.py").exists()
        )
        for program in sorted(path.name for path in (self.prefix / "bin").iterdir()):
            self.assertIn(program, self.check(program, "--help"))
            if program != "headway-bench":  # of kernels alone, which include nothing of the rest
                self.assertIn("headway", self.check(program, "--version"))
        for verb in self.verbs():
            self.assertIn(f"headway {verb}", self.check("headway", verb, "--help"))

    def test_every_program_and_verb_has_a_page_and_shells_complete(self):
        share = self.prefix / "share"
        names = {path.name for path in (self.prefix / "bin").iterdir()} - {"headway-bench"}
        names |= {f"headway-{verb}" for verb in self.verbs()}
        pages = {page.stem: page for page in (share / "man/man1").iterdir()}
        self.assertEqual(set(pages), names)
        for name, page in pages.items():
            self.assertIn(f".SH SYNOPSIS\n.B {name.split('-')[0]}", page.read_text())
            if shutil.which("groff"):
                shown = subprocess.run(
                    ["groff", "-man", "-Tutf8", "-ww", page], capture_output=True, text=True
                )
                self.assertEqual((shown.returncode, shown.stderr), (0, ""), name)
        for shell, file in (
            ("bash", "bash-completion/completions/headway-run"),
            ("zsh", "zsh/site-functions/_headway"),
            ("fish", "fish/vendor_completions.d/headway-run.fish"),
        ):
            self.assertEqual((share / file).read_text(), self.check("headway", "completion", shell))

    def test_every_verb_runs(self):
        shutil.copy(next(TESTS.glob("measurements/logs/*all_reduce*.log")), self.work / "log.txt")
        shutil.copy(TESTS / "import/jobs/top1_64_experts.log", self.work)
        for command in COMMANDS:
            self.check("headway", *command.split())
        self.check("headway-run", *RUN.split())
        self.write_profile_of_another_machine()
        verified = self.run_program("headway", *VERIFY.split())
        # 1: the run is not what that profile predicts.
        self.assertIn(verified.returncode, (0, 1), verified.stderr)
        self.assertIn("predicted", verified.stdout)
        tried = {command.split()[0] for command in COMMANDS} | {"verify"}
        plot = self.run_program("headway", "plot", "result.json", "-o", "x.png")
        if plot.returncode == 0:
            self.assertTrue((self.work / "x.png").read_bytes().startswith(b"\x89PNG"))
        else:
            self.assertIn("no Python with matplotlib", plot.stderr)
        self.assertEqual(self.verbs() - tried - {"plot"}, set(), "verbs not tried")

    def write_profile_of_another_machine(self):
        """Curves of a GPU, in its type and over its link, for EP alone: off, but to be compared."""
        scenarios = self.prefix / "share/headway/scenarios"
        lines = (scenarios / "cpu_small.yaml").read_text().splitlines()
        text = "\n".join(line for line in lines if "head_parallel: {" not in line)
        (self.work / "other").mkdir()
        (self.work / "other/cpu_small.yaml").write_text(text.replace("dtype: fp32", "dtype: bf16"))
        gpu = (scenarios / "profiles/l40s_public.yaml").read_text()
        (self.work / "gpu.yaml").write_text(gpu.replace("path: nvlink", "path: pcie"))

    def test_what_is_taken_from_the_prefix_is_missed(self):
        data = self.prefix / "share/headway"
        self.assertIn("h200_measured", self.check("headway", "list"))
        (data / "scenarios").rename(data / "hidden")
        try:
            for program, words in (
                ("headway", ["predict", "paper_4gpu.yaml"]),
                ("headway", ["validate"]),
                ("headway-run", ["cpu_small.yaml", "--tokens", "32", "-o", "m2.csv"]),
            ):
                done = self.run_program(program, *words)
                self.assertEqual(done.returncode, 2, f"{program}: {done.stdout}")
            self.assertNotIn("h200_measured", self.check("headway", "list"))
        finally:
            (data / "hidden").rename(data / "scenarios")
        (data / "analysis").rename(data / "hidden")
        try:
            self.check("headway", "predict", "paper_4gpu.yaml", "--format", "json", "-o", "r.json")
            plot = self.run_program("headway", "plot", "r.json", "-o", "r.png")
            self.assertEqual(plot.returncode, 2, plot.stderr)
        finally:
            (data / "hidden").rename(data / "analysis")


if __name__ == "__main__":
    unittest.main()
