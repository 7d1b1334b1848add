#!/usr/bin/env python3
"""Tables of docs/results/kernels*.md from one run of headway-bench.

usage: kernel_pages.py RUN.csv             prints every table
       kernel_pages.py RUN.csv PAGE...     writes them into the pages, after <!-- kernels: NAME -->
       kernel_pages.py --check RUN.csv PAGE...   exit code 1 if a page does not show the run's tables
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kernel_tables import aims, bandwidth, experts, layers, operations
from kernel_tables.run import read_run

TABLES = {
    "run": operations.which_run,
    "aims": aims.aims,
    "hp_layer": layers.hp_layer,
    "hp_projected": layers.hp_projected,
    "block": layers.block,
    "other_blocks": layers.other_blocks,
    "ep_block": layers.ep_block,
    "copy_shares": bandwidth.copy_shares,
    "operations": operations.operations,
    "hp_experts": experts.hp_experts,
    "ep_experts": experts.ep_experts,
    "grouped_products": experts.grouped_products,
    "row_movers": bandwidth.row_movers,
    "row_maps": bandwidth.row_maps,
    "head_products": bandwidth.head_products,
    "optimizer": bandwidth.optimizer,
}
# A mark, then the lines up to the next empty one.
BLOCK = re.compile(r"^(<!-- kernels: (\w+) -->\n)\n?((?:[^\n]+\n)*)", re.MULTILINE)


def with_tables(page: str, tables: dict[str, str]) -> str:
    return BLOCK.sub(lambda found: f"{found[1]}\n{tables[found[2]]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description="tables of docs/results/kernels*.md from one run")
    parser.add_argument("run", type=Path, metavar="RUN.csv")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE")
    arguments = parser.parse_args()
    run = read_run(arguments.run)
    tables = {name: make(run) for name, make in TABLES.items()}
    if not arguments.pages:
        for name, text in tables.items():
            print(f"{name}\n\n{text}")
    stale = 0
    for path in arguments.pages:
        page = path.read_text(encoding="utf-8")
        made = with_tables(page, tables)
        if arguments.check and made != page:
            print(f"{path}: not the tables of {arguments.run}")
            stale += 1
        elif made != page:
            path.write_text(made, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
