#!/usr/bin/env python3
"""Who may include whom (docs/reference/design.md), checked over every C++ and CUDA file of the tree."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {".hpp", ".cpp", ".cu", ".cuh"}
VOCAB = "models/vocab"

TEXT = "models/text"

# Folder -> the other folders of headway that its files may include.
MAY_INCLUDE = {
    VOCAB: set(),
    TEXT: {VOCAB},
    "models/schedule": {VOCAB},
    "models/scenario": {VOCAB, "models/schedule", "models/workload"},
    "models/import": {VOCAB, "models/scenario"},
    "models/workload": {VOCAB, "models/schedule"},
    "models/cost": {VOCAB, "models/schedule", "models/workload"},
    "models/fit": {VOCAB, "models/workload", "models/cost"},
    "models/measurements": {VOCAB, TEXT, "models/fit"},
    "models/report": {VOCAB, TEXT},
    "models/trace": {VOCAB, TEXT, "models/report"},
    "models/recorded": {
        VOCAB,
        TEXT,
        "models/scenario",
        "models/workload",
        "models/cost",
        "models/trace",
    },
    "models/validate": {VOCAB, "models/cost"},
    "models/sweep": {VOCAB, TEXT, "models/scenario", "models/workload", "models/cost"},
    "sim": {VOCAB},
    "kernels": set(),
    "runtime": {
        VOCAB,
        TEXT,
        "models/scenario",
        "models/workload",
        "models/report",
        "kernels",
    },
    "cli": {
        VOCAB,
        TEXT,
        "models/scenario",
        "models/import",
        "models/workload",
        "models/cost",
        "models/fit",
        "models/measurements",
        "models/report",
        "models/trace",
        "models/recorded",
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
    "models/import": "headway::inline importing",  # a word of C++20 modules
    TEXT: "headway::inline texts",  # `text` is the name of many a value
    **{
        f"models/{name}": f"headway::inline {name}"
        for name in (
            "schedule",
            "scenario",
            "workload",
            "cost",
            "fit",
            "measurements",
            "report",
            "sweep",
            "trace",
            "recorded",
        )
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
    "gloo/": {"runtime"},
    "cuda": {"kernels", "runtime"},
    "cublas": {"kernels", "runtime"},
}

# Names of the standard library -> the header that a file which uses them includes, itself or by headers of headway.
# Standard libraries differ in what their headers include: GCC 13's <string> has no <cstdint>.
STANDARD = {
    "algorithm": r"std::(sort|stable_sort|find|find_if|min|max|min_element|max_element|fill|any_of|all_of|clamp|transform)\b",
    "array": r"std::(array|to_array)\b",
    "atomic": r"std::atomic\b",
    "chrono": r"std::chrono\b",
    "cmath": r"std::(sqrt|exp|log|abs|pow|ceil|floor|lround|isfinite|isnan)\b",
    "cstdint": r"\b(std::)?u?int(8|16|32|64)_t\b",
    "cstring": r"std::(memcpy|memset|strlen|strerror)\b",
    "functional": r"std::function\b",
    "limits": r"std::numeric_limits\b",
    "map": r"std::map\b",
    "memory": r"std::(unique_ptr|shared_ptr|make_unique|make_shared)\b",
    "mutex": r"std::(mutex|lock_guard|unique_lock)\b",
    "numeric": r"std::(accumulate|iota)\b",
    "optional": r"std::(optional|nullopt)\b",
    "set": r"std::set\b",
    "span": r"std::span\b",
    "stdexcept": r"std::(runtime_error|logic_error|invalid_argument|out_of_range)\b",
    "string": r"std::(string|to_string)\b",
    "string_view": r"std::string_view\b",
    "thread": r"std::(jthread|thread)\b",
    "utility": r"std::(exchange|pair)\b",
    "variant": r"std::(variant|visit|get_if)\b",
    "vector": r"std::vector\b",
}

# What CONTRIBUTING.md promises. A table of cases may be longer than a function of steps.
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 500, 80
LONG_FILES = {
    "analysis/recorder/headway_recorder.py",  # users carry one file to their cluster
    "models/import/shell_script.cpp",
}
TABLES = {
    "models/cost/phase_terms.cpp: double term_value",
    "models/fit/phase_fit.cpp: std::vector<Family> families",
}
NO_FUNCTION = re.compile(
    r"(namespace|struct|class|enum|union|extern|template|(inline |static )*const)"
)

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# A static or thread_local variable that is not const; functions and casts are no match.
MUTABLE_STATIC = re.compile(
    r"^\s*(static|thread_local|static thread_local) (?!const|inline|thread_local)"
    r"[\w:<>,&* ]+ [\w\[\]]+( = .*|\{.*\})?;"
)
# Who starts threads, each with a way for what one throws to reach its caller (NCCL's abort throws nothing).
STARTS_THREADS = {
    "models/vocab/jobs.cpp",
    "models/sweep/run_sweep.cpp",
    "runtime/thread_communicator.cpp",
    "runtime/nccl/nccl_communicator.hpp",
    "runtime/nccl/nccl_communicator.cpp",
    "runtime/process/hub.hpp",
    "runtime/process/hub.cpp",
    "runtime/process/side_channel.hpp",
    "runtime/process/side_channel.cpp",
}
THREAD = re.compile(r"\bstd::(j?thread\b(?!::)|async\b)")
ENVIRONMENT = re.compile(r"\b(getenv|setenv|putenv|environ)\b")
# What gives children an environment, or a library of this process (NCCL, CUDA under MPS) what it reads there.
GIVES_ENVIRONMENT = {
    "cli/python.cpp",
    "runtime/process/mps.cpp",
    "runtime/process/local_ranks.cpp",
    "runtime/nccl/gpu_rank.cpp",
}


# for (x : f(...).y[... or .y(...
BALANCED = r"(?:[^();]|\((?:[^();]|\((?:[^();]|\([^();]*\))*\))*\))*"
LOOP_OVER_A_CALL = re.compile(rf"for \([^;()]*[^:]:\s+[\w:]+\({BALANCED}\)\.[\w.]*[\[(]")


def functions(text: str):
    """(first line, lines) of the functions at the left margin of formatted code."""
    first, number = "", 0
    for i, line in enumerate(text.splitlines(), 1):
        if not first and line[:1].isalpha() and not NO_FUNCTION.match(line):
            first, number = line, i
        elif line == "}" and first:
            yield first, i - number + 1
        if line[:1] in "}#" or (line.endswith(";") and line[:1].isalpha()):
            first = ""


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

    def test_neither_folders_nor_files_include_each_other_in_a_circle(self):
        drawn = subprocess.run(
            [ROOT / "scripts/folders", "--files"], capture_output=True, text=True, check=False
        )
        self.assertEqual(drawn.stderr, "")
        self.assertIn("no circle", drawn.stdout)

    def test_files_and_functions_keep_their_limits(self):
        tracked = subprocess.run(
            ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        files = [ROOT / name for name in tracked if Path(name).suffix in SOURCES | {".py"}]
        long, seen = set(), set()
        for file in files or self.files:  # a source archive has no list
            text, name = file.read_text(encoding="utf-8"), self.relative(file)
            if text.count("\n") > MOST_LINES_OF_A_FILE:
                long.add(name)
            if file.suffix in SOURCES:
                seen |= {
                    f"{name}: {first}"
                    for first, lines in functions(text)
                    if lines > MOST_LINES_OF_A_FUNCTION
                }
        self.assertEqual(long - LONG_FILES, set())
        told = {line for line in seen if any(line.startswith(table) for table in TABLES)}
        self.assertEqual(seen - told, set())
        self.assertEqual(len(told), len(TABLES), "a table that is short by now")

    def test_every_phase_has_its_colour_in_the_order_of_the_table(self):
        table = (ROOT / "models/vocab/phase.hpp").read_text(encoding="utf-8")
        rows = re.findall(r'PhaseFacts\{Phase::(\w+), "(\w+)"', table)
        self.assertEqual([row for row in rows if row[0] != row[1]], [])
        palette = (ROOT / "analysis/palette.py").read_text(encoding="utf-8")
        colours = re.findall(r'^    "(\w+)": \("#', palette.split("LINKS")[0], re.MULTILINE)
        self.assertEqual(colours, [name for _, name in rows] + ["others"])

    def test_every_kind_of_layer_has_its_colours(self):
        plan = (ROOT / "models/vocab/plan.hpp").read_text(encoding="utf-8")
        names = re.search(r"kLayerSplitNames = \{(.*?)\};", plan, re.DOTALL)[1]
        palette = (ROOT / "analysis/palette.py").read_text(encoding="utf-8")
        layers = re.search(r"^LAYERS = \{(.*?)^\}", palette, re.DOTALL | re.MULTILINE)[1]
        self.assertEqual(
            re.findall(r'^    "(\w+)"', layers, re.MULTILINE), re.findall(r'"(\w+)"', names)
        )

    def test_headers_that_are_included_exist(self):
        """Under every option of the build, those of the GPU half too."""
        broken = [
            f"{self.relative(file)}:{number}: {header}"
            for file in self.files
            for number, quoted, header in includes(file)
            if quoted and "/" in header and not (ROOT / header).is_file()
        ]
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

    def test_the_design_page_has_the_same_table(self):
        page = (ROOT / "docs/reference/design.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `([\w/]+)` \| .* \| ([^|]+) \|$", page, re.MULTILINE)
        host = MAY_INCLUDE["cli"] - {"kernels"}
        told = {"nothing of headway": set(), "all of the host side": host}
        table = {}
        for folder, may in rows:
            short = {name if name in MAY_INCLUDE else f"models/{name}" for name in may.split(", ")}
            table[folder] = told.get(may, short)
        del table["analysis"]  # reads result files only
        self.assertEqual(table, MAY_INCLUDE)

    def test_no_virtual_functions_in_what_is_pure(self):
        pure = {VOCAB, "models/workload", "models/cost", "sim"}
        broken = [
            self.relative(f)
            for f in self.files
            if folder_of(self.relative(f)) in pure
            and re.search(r"^\s*virtual ", f.read_text("utf-8"), re.MULTILINE)
        ]
        self.assertEqual(broken, [])

    def test_nobody_includes_tests(self):
        broken = [
            f"{self.relative(file)}:{number}: {header}"
            for file in self.files
            for number, _, header in includes(file)
            if header.startswith("tests/")
        ]
        self.assertEqual(broken, [])

    def test_what_is_used_of_the_standard_library_is_included(self):
        own, all_of = {}, {}
        for file in self.files:
            lines = list(includes(file))
            own[self.relative(file)] = (
                {header for _, quoted, header in lines if not quoted},
                [header for _, quoted, header in lines if quoted],
            )

        def reached(name):
            if name not in all_of:
                standard, quoted = own.get(name, (set(), []))
                all_of[name] = standard.union(*(reached(header) for header in quoted))
            return all_of[name]

        broken = []
        for file in self.files:
            code = re.sub(r"//.*", "", file.read_text(encoding="utf-8"))
            name = self.relative(file)
            for header, uses in STANDARD.items():
                used = re.search(uses, code)
                if used and header not in reached(name):
                    broken.append(f"{name}: {used[0]} without <{header}>")
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
            code = re.sub(r"//.*", "", text)
            found = set(ENVIRONMENT.findall(code))
            if self.relative(file) in GIVES_ENVIRONMENT:
                found -= {"setenv", "environ"}
            if found and not re.search(r"\bint main\(", text):
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

    def test_threads_are_started_in_few_places(self):
        starts = {self.relative(f) for f in self.files if THREAD.search(f.read_text("utf-8"))}
        self.assertEqual(starts - STARTS_THREADS, set(), "use models/vocab/jobs.hpp")

    def test_loops_go_over_what_lives(self):
        """A range-for keeps what a call returns, not what an index into it or a call on it leads to: its owner is gone."""
        tests = [f for f in (ROOT / "tests").rglob("*") if f.suffix in SOURCES]
        broken = [
            f"{self.relative(file)}: {match[0]}"
            for file in [*self.files, *tests]
            for match in LOOP_OVER_A_CALL.finditer(file.read_text(encoding="utf-8"))
        ]
        self.assertEqual(broken, [])

    def test_headers_have_pragma_once(self):
        headers = [file for file in self.files if file.suffix in {".hpp", ".cuh"}]
        broken = [self.relative(f) for f in headers if "#pragma once" not in f.read_text()]
        self.assertEqual(broken, [])


if __name__ == "__main__":
    sys.exit(unittest.main())
