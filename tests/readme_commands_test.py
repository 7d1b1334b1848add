#!/usr/bin/env python3
"""Runs every command block of README.md, docs/tutorial, docs/howto and docs/studies, and checks what the pages show.

usage: readme_commands_test.py BIN_FOLDER [--update]

Blocks of one page run in order, in one scratch folder that has the checkout's scenarios/ and a
build/bin/. Marks before a fence (on the line above it):
  <!-- not run: REASON -->   the sh block is not run
  <!-- output -->            the text block shows the standard output of the sh block before it;
                             four fifths of its lines must have the words of the real ones
  <!-- table N -->           the Markdown table that follows is the N-th one that the sh block before it
                             prints; alike as outputs are
  <!-- figure: FILE -->      the image that follows was drawn as FILE by the blocks before it
--update writes outputs, tables and figures into the pages anew.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path()

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$"
    r"|^<!-- figure: (?P<drawn>\S+) -->\n+!\[[^\]]*\]\((?P<image>[^)]+)\)"
    r"|^<!-- table (?P<number>\d+) -->\n+(?P<rows>(?:\|[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)
TABLE = re.compile(r"(?:^\|[^\n]*\n)+", re.MULTILINE)


@dataclass
class Block:
    """A fenced block, or a figure, and where its text lies in the page."""

    mark: str
    language: str
    text: str
    span: tuple[int, int]
    drawn: str | None = None
    image: str | None = None


def pages() -> list[Path]:
    folders = (ROOT / "docs" / name for name in ("tutorial", "howto", "studies"))
    return [
        ROOT / "README.md",
        *(page for folder in folders for page in sorted(folder.glob("*.md"))),
    ]


def blocks_of(page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        if match["drawn"]:
            figure = Block("", "figure", "", match.span(), match["drawn"], match["image"])
            found.append(figure)
        elif match["number"]:
            found.append(Block(match["number"], "table", match["rows"], match.span("rows")))
        else:
            mark, language, text = match["mark"] or "", match["language"], match["text"]
            found.append(Block(mark, language, text, match.span("text")))
    return found


def scratch_folder(stack: unittest.TestCase) -> Path:
    folder = tempfile.TemporaryDirectory()
    stack.addCleanup(folder.cleanup)
    path = Path(folder.name)
    for name in ("scenarios", "scripts", "docs", "analysis", "tests"):
        (path / name).symlink_to(ROOT / name)
    (path / "build").mkdir()
    (path / "build" / "bin").symlink_to(BIN)
    return path


def run(block: Block, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,  # a Debug build of all of it on a busy machine
        check=False,
    )


def without_commit(text: str) -> str:
    """Pages name the version, not the commit they were written at."""
    return re.sub(r"(headway \d+\.\d+\.\d+)\+\w+(-dirty)?", r"\1", text)


def words(text: str) -> list[tuple[str, ...]]:
    """The words of each line without numbers and their units."""
    units = {"ns", "us", "ms", "s", "B", "KiB", "MiB", "GiB", "TiB", "-"}
    lines = [re.findall(r"[A-Za-z_-][\w/-]*", line) for line in text.splitlines()]
    return [tuple(word for word in line if word not in units) for line in lines]


class Pages(unittest.TestCase):
    update = False

    def check_page(self, page: Path):
        folder = scratch_folder(self)
        text = page.read_text(encoding="utf-8")
        output, edits = "", []
        for block in blocks_of(page):
            where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.span[0]) + 1}"
            if block.language in ("sh", "bash"):
                if block.mark.startswith("not run: "):
                    continue
                result = run(block, folder)
                self.assertEqual(result.returncode, 0, f"{where}\n{block.text}\n{result.stderr}")
                output = result.stdout
            elif block.mark == "output" or block.language == "table":
                shown = without_commit(output)
                if block.language == "table":
                    tables = TABLE.findall(output)
                    self.assertLessEqual(int(block.mark), len(tables), f"{where}\n{output}")
                    shown = tables[int(block.mark) - 1]
                edits.append((block.span, shown))
                if not self.update:
                    alike = SequenceMatcher(None, words(block.text), words(shown)).ratio()
                    self.assertGreater(alike, 0.8, f"{where}: {HINT}\n{shown}")
            elif block.language == "figure":
                self.assertTrue((folder / block.drawn).is_file(), f"{where}: {block.drawn}")
                if self.update:
                    (page.parent / block.image).parent.mkdir(exist_ok=True)
                    shutil.copy(folder / block.drawn, page.parent / block.image)
                self.assertTrue((page.parent / block.image).is_file(), f"{where}: {block.image}")
        if self.update:
            for (begin, end), shown in reversed(edits):
                text = text[:begin] + shown + text[end:]
            page.write_text(text, encoding="utf-8")

    def test_every_page(self):
        for page in pages():
            with self.subTest(page=page.name):
                self.check_page(page)


HINT = "the page shows something else; tests/readme_commands_test.py BIN_FOLDER --update mends it"

if __name__ == "__main__":
    Pages.update = "--update" in sys.argv
    BIN = Path(sys.argv[1]).resolve()
    unittest.main(argv=sys.argv[:1])
