#!/usr/bin/env python3
"""Who may include whom (docs/design.md), checked over every C++ and CUDA file of the tree."""

import re
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {".hpp", ".cpp", ".cu", ".cuh"}
VOCAB = "models/vocab"

# Folder -> the other folders of headway that its files may include.
MAY_INCLUDE = {
    VOCAB: set(),
    "models/schedule": {VOCAB},
    "models/scenario": {VOCAB},
    "models/workload": {VOCAB},
    "models/cost": {VOCAB, "models/workload"},
    "models/fit": {VOCAB, "models/workload", "models/cost", "models/report"},
    "models/report": {VOCAB},
    "models/validate": {VOCAB, "models/cost"},
    "models/sweep": {VOCAB, "models/scenario", "models/workload", "models/cost", "models/report"},
    "sim": {VOCAB, "models/workload"},
    "kernels": set(),
    "runtime": {VOCAB, "models/scenario", "models/workload", "models/report", "kernels"},
    "cli": {
        VOCAB,
        "models/scenario",
        "models/workload",
        "models/cost",
        "models/fit",
        "models/report",
        "models/validate",
        "models/sweep",
        "sim",
        "runtime",
    },
}

# Folder -> its namespace, so that two types of one name in two folders are two types to the linker too. The folders of
# models are inline namespaces: nobody has to spell them. sim, runtime, kernels and cli are named where they are used.
NAMESPACES = {
    VOCAB: "headway",
    "models/validate": "headway::inline validation",  # `validate` is its function
    **{
        f"models/{name}": f"headway::inline {name}"
        for name in ("schedule", "scenario", "workload", "cost", "fit", "report", "sweep")
    },
    "sim": "headway::sim",
    "kernels": "headway::kernels",
    "runtime": "headway::runtime",
    "cli": "headway::cli",
}

# Third-party headers by prefix -> the folders that may see them.
ONLY_IN = {
    "yaml-cpp/": {"models/scenario"},
    "boost/program_options": {"cli", "runtime", "kernels"},
    "nccl": {"runtime"},
    "cuda": {"kernels", "runtime"},
    "cublas": {"kernels", "runtime"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# A static or thread_local variable that is not const; functions and casts are no match.
MUTABLE_STATIC = re.compile(
    r"^\s*(static|thread_local|static thread_local) (?!const|inline|thread_local)"
    r"[\w:<>,&* ]+ [\w\[\]]+( = .*|\{.*\})?;"
)
GETENV = re.compile(r"\bgetenv\s*\(")


def source_files():
    folders = ("models", "sim", "kernels", "runtime", "cli")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*")]
    return sorted(file for file in files if file.suffix in SOURCES)


def folder_of(path: str) -> str | None:
    """The rule's folder that a path (relative to the root) lies in."""
    parts = path.split("/")
    name = "/".join(parts[:2]) if parts[0] == "models" else parts[0]
    return name if name in MAY_INCLUDE else None


def includes(file: Path):
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[1] == '"', match[2]


class IncludeRules(unittest.TestCase):
    def setUp(self):
        self.files = source_files()
        self.assertGreater(len(self.files), 50, "the tree was not found")

    def relative(self, file: Path) -> str:
        return file.relative_to(ROOT).as_posix()

    def test_every_folder_has_a_rule(self):
        lost = [self.relative(f) for f in self.files if folder_of(self.relative(f)) is None]
        self.assertEqual(lost, [])

    def test_folders_include_only_what_they_may(self):
        broken = []
        for file in self.files:
            own = folder_of(self.relative(file))
            for number, quoted, header in includes(file):
                other = folder_of(header) if quoted else None
                if (
                    other is not None
                    and own is not None
                    and other != own
                    and other not in MAY_INCLUDE[own]
                ):
                    broken.append(f"{self.relative(file)}:{number}: {own} includes {header}")
        self.assertEqual(broken, [])

    def test_every_folder_has_its_namespace(self):
        broken = []
        for file in self.files:
            wanted = NAMESPACES[folder_of(self.relative(file))]
            text = file.read_text(encoding="utf-8")
            for name in re.findall(r"^namespace (headway[\w:]*(?: \w+)?) \{", text, re.MULTILINE):
                if name != wanted and not name.startswith(wanted + "::"):
                    broken.append(f"{self.relative(file)}: namespace {name}, not {wanted}")
        self.assertEqual(broken, [])

    def test_nobody_includes_tests(self):
        broken = [
            f"{self.relative(file)}:{number}: {header}"
            for file in self.files
            for number, _, header in includes(file)
            if header.startswith("tests/")
        ]
        self.assertEqual(broken, [])

    def test_third_party_headers_stay_in_their_place(self):
        broken = []
        for file in self.files:
            for number, quoted, header in includes(file):
                for prefix, folders in ONLY_IN.items():
                    own = folder_of(self.relative(file))
                    if not quoted and header.startswith(prefix) and own not in folders:
                        broken.append(f"{self.relative(file)}:{number}: {header}")
        self.assertEqual(broken, [])

    def test_json_is_included_by_source_files_only(self):
        broken = [
            self.relative(file)
            for file in self.files
            if file.suffix == ".hpp"
            for _, _, header in includes(file)
            if header.startswith("nlohmann/")
        ]
        self.assertEqual(broken, [])

    def test_the_environment_is_read_in_main_only(self):
        broken = []
        for file in self.files:
            text = file.read_text(encoding="utf-8")
            if GETENV.search(text) and not re.search(r"\bint main\(", text):
                broken.append(self.relative(file))
        self.assertEqual(broken, [])

    def test_no_mutable_statics(self):
        broken = [
            f"{self.relative(file)}:{number}: {line.strip()}"
            for file in self.files
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
            if MUTABLE_STATIC.match(line)
        ]
        self.assertEqual(broken, [])

    def test_headers_have_pragma_once(self):
        headers = [file for file in self.files if file.suffix in {".hpp", ".cuh"}]
        broken = [self.relative(f) for f in headers if "#pragma once" not in f.read_text()]
        self.assertEqual(broken, [])


if __name__ == "__main__":
    sys.exit(unittest.main())
