#!/usr/bin/env python3
"""The pages of the manual: links lead somewhere, paths that code and pages name exist, prose is wrapped, results have their box."""

import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

LINK = re.compile(r"\]\(([^()\s]+)\)|<(?:img|a)[^>]* (?:src|href)=\"([^\"]+)\"")
# A path in running text or code, `docs/...`.
MENTION = re.compile(r"(?<![\w/.-])docs/[\w/.-]*\w")
TEXT = {".md", ".py", ".cpp", ".hpp", ".cu", ".cuh", ".yaml", ".txt", ".cmake", ".sh", ""}
# What cites the docs of other projects.
CITES = ("scenarios/anchors/", "tests/import/", "docs/results/generated/validation.md")
# A sentence, comment or item that begins so.
FRONTED = re.compile(r"(?:^|[.!?] |//+ |# |\"\"\"|^- )Of [a-z0-9]")
OWN_WORDS = ("CONTRIBUTING.md", "docs/results/generated/", "tests/pages_test.py")
# Rows of the box, in this order; how it was predicted is a sixth where something was.
BOX = ["Question", "Answer", "Measured", "Commit", "Again"]


def tracked() -> list[Path]:
    found = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False
    )
    names = found.stdout.splitlines()
    if not names:  # a source archive
        names = [
            p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.md") if "build" not in p.parts[0]
        ]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)) for head in heads
    ]
    return {head.strip().lower().replace(" ", "-") for head in plain}


class Pages(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.files = tracked()
        self.pages = [file for file in self.files if file.suffix == ".md"]
        self.assertGreater(len(self.pages), 30, "the tree was not found")

    def links(self, page: Path):
        for link, html in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
            if "://" not in (link or html):
                path, _, anchor = (link or html).partition("#")
                yield (page.parent / path).resolve() if path else page, anchor

    def test_links_lead_somewhere(self):
        broken = []
        for page in self.pages:
            for target, anchor in self.links(page):
                name = f"{page.relative_to(ROOT)}: {target}"
                if not target.exists():
                    broken.append(name)
                elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                    broken.append(f"{name}#{anchor}")
        self.assertEqual(broken, [])

    def test_paths_that_are_named_exist(self):
        broken = []
        for file in self.files:
            name = file.relative_to(ROOT).as_posix()
            if file.suffix not in TEXT or name.startswith(CITES):
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                for path in MENTION.findall(line) if "docs/" in line else ():
                    if not list(ROOT.glob(path + "*")):
                        broken.append(f"{name}:{number}: {path}")
        self.assertEqual(broken, [])

    def test_every_page_is_reached_from_the_contents(self):
        seen, ahead = set(), [DOCS / "README.md"]
        while ahead:
            page = ahead.pop()
            if page in seen or page.suffix != ".md":
                continue
            seen.add(page)
            ahead += [target for target, _ in self.links(page) if target.exists()]
        lost = {page for page in self.pages if DOCS in page.parents} - seen
        self.assertEqual(sorted(page.name for page in lost), [])

    def test_no_sentence_begins_with_of(self):
        broken = []
        for file in self.files:
            name = file.relative_to(ROOT).as_posix()
            if file.suffix in TEXT and not name.startswith(CITES + OWN_WORDS):
                for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                    if FRONTED.search(line):
                        broken.append(f"{name}:{number}: {line.strip()[:60]}")
        self.assertEqual(broken, [])

    def test_prose_is_wrapped(self):
        own = [
            page
            for page in self.pages
            if "generated" not in page.parts and page.name != "scenario.md"
        ]
        found = subprocess.run(
            [ROOT / "scripts/wrap_pages", "--check", *own],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(found.stdout, "", "scripts/wrap_pages wraps them")

    def test_no_change_is_listed_twice(self):
        """A merge once kept two copies of a hundred lines. One that was cut short begins as its whole does."""
        text = (ROOT / "CHANGELOG.md").read_text()
        begins = [" ".join(item.split())[:50] for item in re.split(r"^- ", text, flags=re.M)[1:]]
        self.assertGreater(len(begins), 100)
        twice = {begin for begin in begins if begins.count(begin) > 1}
        self.assertEqual(twice, set())

    def test_results_begin_with_their_box(self):
        broken = []
        for page in sorted((DOCS / "results").glob("*.md")):
            if page.name in NO_RESULT:
                continue
            head = page.read_text(encoding="utf-8").splitlines()[2:12]
            rows = [line.split("|")[1].strip() for line in head if line.startswith("|")]
            if [row for row in rows if row in BOX] != BOX:
                broken.append(f"{page.name}: {rows}")
        self.assertEqual(broken, [])


# Contents, a register, a history.
NO_RESULT = {"README.md", "mended.md", "validation_gpu_history.md"}

if __name__ == "__main__":
    unittest.main()
