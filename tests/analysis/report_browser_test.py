#!/usr/bin/env python3
"""The script of a report's page in a real browser: sorting, switching, sliders, links to a state, the keyboard, widths.

usage: report_browser_test.py HEADWAY   (exit code 77: skipped, no Chromium here)
"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from urllib.parse import quote

from browser import Browser, found
from report_test import plan, prediction, report, sweep

ROOT = Path(__file__).resolve().parent.parent.parent
HEADWAY = ""
SCENARIO = "scenarios/paper_4gpu.yaml"  # plans ep_naive (baseline), ep_dedup, hp
AXES = ("model.moe.top_k=2,4,8", "cluster.nvlink.bandwidth=100..400:100 GB/s")
POINT = f"model.moe.top_k=4&cluster.nvlink.bandwidth={quote('300 GB/s')}"
WIDTHS = (390, 1280)

# What the page shows: rows and columns that are not hidden, as texts or as the numbers that they round.
HELPERS = """
(() => {
  const seen = (element) => element.getClientRects().length > 0;
  window.heads = (id) => [...document.querySelectorAll(`#${id} thead th`)].filter(seen).map((head) => head.innerText.trim());
  window.rows = (id) => [...document.querySelectorAll(`#${id} tbody tr`)].filter(seen)
    .map((row) => [...row.cells].filter(seen).map((cell) => cell.innerText.trim()));
  window.values = (id, column) => [...document.querySelectorAll(`#${id} tbody tr`)].filter(seen)
    .map((row) => row.cells[column].querySelector("data")).map((data) => data && Number(data.value));
  window.sorts = (id) => [...document.querySelectorAll(`#${id} thead th`)].map((head) => head.getAttribute("aria-sort"));
  window.timelines = () => [...document.querySelectorAll("figure .plan")].filter(seen).map((part) => part.dataset.plan);
  window.choose = (id, value) => {
    const element = document.getElementById(id);
    element[element.type === "checkbox" ? "checked" : "value"] = value;
    element.dispatchEvent(new Event("input", {bubbles: true}));
  };
  window.press = (id, column) => document.querySelectorAll(`#${id} thead th`)[column].querySelector("button").click();
})()
"""


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        folder = Path(cls.folder.name)
        cls.page, results = folder / "report.html", folder / "sweep.csv"
        axes = [word for axis in AXES for word in ("--axis", axis)]
        for words in (
            ["sweep", SCENARIO, *axes, "-o", results],
            ["report", SCENARIO, "--sweep", results, "-o", cls.page],
        ):
            subprocess.run([HEADWAY, *words], cwd=ROOT, check=True, capture_output=True)
        cls.browser = Browser(found())

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.folder.cleanup()

    def open(self, fragment="", width=1280, **how):
        self.browser.show(width, **how)
        self.browser.open(self.page, fragment)
        self.assertEqual(self.browser.complaints(), [])
        self.browser.run(HELPERS)

    def tearDown(self):
        self.assertEqual(self.browser.complaints(), [])

    def run_js(self, expression):
        return self.browser.run(expression)

    def test_a_head_sorts_up_down_and_back(self):
        self.open()
        first = self.run_js("values('phases', 2)")
        present = sorted(value for value in first if value is not None)
        lacking = [None] * (len(first) - len(present))
        self.assertGreater(len(lacking), 0)  # phases that EP lacks, last both ways
        self.assertNotEqual(first, present + lacking)
        for way, expected in (
            ("ascending", present + lacking),
            ("descending", present[::-1] + lacking),
            (None, first),
        ):
            self.run_js("press('phases', 2)")
            self.assertEqual(self.run_js("values('phases', 2)"), expected)
            self.assertEqual(self.run_js("sorts('phases')"), [None, None, way, None, None])
        self.run_js("press('phases', 0)")
        names = [row[0] for row in self.run_js("rows('phases')")]
        self.assertEqual(names, sorted(names))
        self.assertEqual(self.run_js("sorts('plans')"), [None] * 8)  # one table at a time

    def test_sums_stay_below_what_is_sorted(self):
        self.open("#sort=phases:2d")
        feet = "[...document.querySelectorAll('#phases tfoot th')].map((cell) => cell.innerText)"
        self.assertEqual(self.run_js(feet), ["sum", "sum", "sum"])

    def test_two_plans_are_held_against_each_other(self):
        self.open()
        everything = self.run_js("rows('phases').length")
        self.assertEqual(self.run_js("timelines()"), ["ep_naive", "ep_dedup", "hp"])
        self.run_js("choose('plan', 'hp')")
        self.run_js("choose('against', 'ep_dedup')")
        self.assertEqual(self.run_js("timelines()"), ["ep_dedup", "hp"])
        for table in ("phases", "totals", "layer", "memory"):
            heads = self.run_js(f"heads('{table}')")
            self.assertEqual(
                [head.split("\xa0")[0] for head in heads[-3:]], ["ep_dedup", "hp", "difference"]
            )
        # Columns by their place in the document: ep_naive 2, ep_dedup 3, hp 4, the difference 5; what is lacking is 0.
        ep, hp, difference = (self.run_js(f"values('phases', {column})") for column in (3, 4, 5))
        for a, b, found_difference in zip(hp, ep, difference, strict=True):
            self.assertFalse(a is None and b is None)
            self.assertAlmostEqual((a or 0) - (b or 0), found_difference, places=15)
        verdict = self.run_js("document.getElementById('verdict').value")
        steps = self.run_js("values('plans', 1)")
        self.assertIn(f"{100 * (steps[2] / steps[1] - 1):+.1f} %", verdict)
        self.assertEqual(self.run_js("location.hash.includes('plan=hp&against=ep_dedup')"), True)
        details = "[...document.querySelectorAll('details[data-plan]')].map((part) => [part.hidden, part.open])"
        self.assertEqual(self.run_js(details), [[True, False], [False, False], [False, True]])
        # Phases that both lack are left out: those of HP's heads.
        self.run_js("choose('plan', 'ep_naive')")
        names = {row[0] for row in self.run_js("rows('phases')")}
        self.assertIn("dispatch", names)
        self.assertNotIn("head_scatter", names)
        self.run_js("choose('plan', '')")
        self.assertEqual(self.run_js("rows('phases').length"), everything)
        self.assertEqual(self.run_js("document.querySelectorAll('.difference').length"), 0)

    def test_the_noise_is_said(self):
        self.open("#plan=hp&against=ep_naive")
        self.assertIn("within the noise", self.run_js("document.getElementById('verdict').value"))
        self.open("#plan=ep_dedup&against=hp")
        self.assertNotIn("noise", self.run_js("document.getElementById('verdict').value"))

    def test_a_difference_sorts_and_is_put_away_with_its_plans(self):
        self.open("#plan=hp&against=ep_naive&sort=phases:5d")
        differences = self.run_js("values('phases', 5)")
        self.assertEqual(differences, sorted(differences, reverse=True))
        self.run_js("choose('against', 'ep_dedup')")
        differences = self.run_js("values('phases', 5)")
        self.assertEqual(differences, sorted(differences, reverse=True))
        self.run_js("choose('plan', '')")
        self.assertEqual(self.run_js("sorts('phases')"), [None] * 5)
        self.assertNotIn("sort", self.run_js("location.hash"))
        # So is an order by a column that is no longer shown: ep_naive's.
        self.run_js("press('phases', 2)")
        self.run_js("choose('plan', 'hp')")
        self.run_js("choose('against', 'ep_dedup')")
        self.assertEqual(self.run_js("sorts('phases')"), [None] * 6)
        self.assertNotIn("sort", self.run_js("location.hash"))

    def test_a_link_leads_to_a_state(self):
        self.open(f"#plan=hp&against=ep_naive&sort=phases:2d,plans:1a&{POINT}")
        self.assertEqual(self.run_js("document.getElementById('plan').value"), "hp")
        self.assertEqual(self.run_js("timelines()"), ["ep_naive", "hp"])
        self.assertEqual(self.run_js("sorts('phases')[2]"), "descending")
        steps = self.run_js("values('plans', 1)")
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(
            self.run_js("[...document.querySelectorAll('output[for]')].map((o) => o.value)"),
            ["4", "300 GB/s"],
        )
        # The page writes the link that led here, and what follows it while open is followed.
        self.run_js("choose('axis-0', '2')")
        written = self.run_js("location.hash")
        self.assertIn(
            "plan=hp&against=ep_naive&sort=phases%3A2d%2Cplans%3A1a",
            written,
        )
        self.assertIn("model.moe.top_k=8", written)
        self.open(written)
        self.assertEqual(self.run_js("location.hash"), written)
        self.assertEqual(self.run_js("document.querySelector('output[for=axis-0]').value"), "8")

    def test_a_link_that_says_nonsense_is_the_page_as_at_first(self):
        self.open()
        first = self.run_js("document.body.innerText")
        self.open(
            "#plan=nobody&against=%3Cb%3E&sort=phases:99a,plans:-1d,x:0a,&model.moe.top_k=3&%%%=&"
        )
        self.assertEqual(self.run_js("document.body.innerText"), first)

    def test_sliders_choose_a_point(self):
        self.open()
        self.assertEqual(self.run_js("rows('sweep').length"), 3)
        swept = "[...document.querySelectorAll('#sweep tbody tr')].filter((row) => !row.hidden).map((row) => [row.cells[1].textContent, row.cells[2].textContent])"
        for k, nvlink, expected in ((0, 0, ["2", "100 GB/s"]), (2, 3, ["8", "400 GB/s"])):
            self.run_js(f"choose('axis-0', '{k}')")
            self.run_js(f"choose('axis-1', '{nvlink}')")
            self.assertEqual(self.run_js(swept), [expected] * 3)
            said = "document.getElementById('axis-1').getAttribute('aria-valuetext')"
            self.assertEqual(self.run_js(said), expected[1])
        self.run_js("choose('all-points', true)")
        self.assertEqual(self.run_js("rows('sweep').length"), 36)
        self.assertIn("model.moe.top_k", " ".join(self.run_js("heads('sweep')")))

    def test_curves_follow_the_sliders(self):
        self.open()
        circles = "[...document.querySelectorAll('#curves circle')].map((circle) => Number(circle.getAttribute('cy')))"
        everything = self.run_js("(choose('all-points', true), values('sweep', 3))")
        for nvlink in (0, 3):
            self.run_js(f"choose('axis-1', '{nvlink}')")
            # Rows: 3 values of k, each with 4 of NVLink, each with 3 plans; curves: a plan after the other.
            steps = [everything[12 * k + 3 * nvlink + plan] for plan in range(3) for k in range(3)]
            heights = [165 - 145 * step / max(steps) for step in steps]
            for found_height, height in zip(self.run_js(circles), heights, strict=True):
                self.assertAlmostEqual(found_height, height, places=9)
        self.run_js("choose('over', 'cluster.nvlink.bandwidth')")
        self.assertEqual(self.run_js(f"{circles}.length"), 12)
        self.assertEqual(
            self.run_js("document.querySelector('#curves .chosen').getAttribute('x1')"), "75%"
        )
        self.assertIn("over=cluster.nvlink.bandwidth", self.run_js("location.hash"))

    def test_sweeps_of_one_point_and_of_points_that_cannot_be(self):
        folder = Path(self.folder.name)
        data, results, page = (folder / name for name in ("p.json", "s.csv", "hand.html"))
        data.write_text(json.dumps(prediction(plan("ep", 1, 1, 2))))
        invalid = "ep,expert_parallel,predicted,invalid,,,,,,,"
        for rows, sliders, shown in (
            ([f"1,{invalid}"], 0, 1),
            ([f"1,{invalid}", f"2,{invalid}"], 1, 1),
        ):
            results.write_text(sweep(rows))
            self.assertEqual(report(data, "--sweep", results, "-o", page).returncode, 0)
            self.browser.open(page, "#plan=ep&k=2")
            self.assertEqual(self.browser.complaints(), [])
            self.browser.run(HELPERS)
            self.assertEqual(
                self.run_js("document.querySelectorAll('input[data-axis]').length"), sliders
            )
            self.assertEqual(self.run_js("rows('sweep').length"), shown)
            self.assertEqual(self.run_js("document.querySelectorAll('#curves circle').length"), 0)

    def test_the_keyboard_is_enough(self):
        self.open()
        self.run_js("document.querySelector('#phases button').focus()")
        self.browser.press("Enter")
        self.assertEqual(self.run_js("sorts('phases')[0]"), "ascending")
        self.browser.press("Tab")
        self.browser.press(" ")
        self.assertEqual(self.run_js("sorts('phases')[1]"), "ascending")
        self.run_js("document.getElementById('axis-0').focus()")
        self.browser.press("ArrowRight")
        self.assertEqual(self.run_js("document.querySelector('output[for=axis-0]').value"), "4")
        self.browser.press("End")
        self.assertEqual(self.run_js("document.querySelector('output[for=axis-0]').value"), "8")
        self.run_js("choose('all-points', true)")
        self.run_js("document.getElementById('axis-0').focus()")
        self.browser.press("Home")
        self.assertEqual(self.run_js("rows('sweep').length"), 3)

    def test_nothing_is_wider_than_the_screen(self):
        for width in WIDTHS:
            for script in (True, False):
                for fragment in ("", f"#plan=hp&against=ep_dedup&sort=phases:5a&{POINT}"):
                    self.open(fragment, width, script=script)
                    size = self.run_js(
                        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
                    )
                    self.assertEqual(size, [width, width], (script, fragment))

    def test_without_script_everything_is_there_and_no_control(self):
        self.open(script=False)
        self.assertEqual(self.run_js("document.querySelectorAll('button').length"), 0)
        self.assertEqual(self.run_js("document.getElementById('plan').getClientRects().length"), 0)
        self.assertEqual(self.run_js("rows('sweep').length"), 36)
        hidden = "[...document.querySelectorAll('td, main h2, .plan')].filter((part) => !part.getClientRects().length).length"
        self.assertEqual(self.run_js(hidden), 0)

    def test_text_can_be_read_in_light_and_dark(self):
        """WCAG's contrast of at least 4.5 of every colour that text has, on every ground that it stands on."""
        contrast = """(() => {
          const light = (text) => {
            const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map((value) => value / 255)
              .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (element) => {
            for (let at = element; at; at = at.parentElement) {
              const colour = getComputedStyle(at).backgroundColor;
              if (!colour.startsWith("rgba")) return colour;
            }
            return "rgb(255, 255, 255)";
          };
          const told = (element) => {
            const style = getComputedStyle(element);
            const [a, b] = [light(element.tagName === "text" ? style.fill : style.color), light(ground(element))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          };
          return Math.min(...[...document.querySelectorAll("h1, dt, dd, p, th, td, li, text, figcaption, summary, output")]
            .filter((element) => element.getClientRects().length).map(told));
        })()"""
        for dark in (False, True):
            self.open("#plan=hp", dark=dark)
            self.assertGreaterEqual(self.run_js(contrast), 4.5, f"dark: {dark}")
            page = self.run_js("getComputedStyle(document.body).backgroundColor")
            self.assertEqual(page == "rgb(255, 255, 255)", not dark)

    def test_paper_has_no_controls_and_no_dark_ground(self):
        self.open(dark=True, media="print")
        for selector in ("#choice", "#sliders"):
            seen = self.run_js(f"document.querySelector('{selector}').getClientRects().length")
            self.assertEqual(seen, 0)
        page = self.run_js("getComputedStyle(document.body).backgroundColor")
        self.assertEqual(page, "rgb(255, 255, 255)")
        self.run_js("dispatchEvent(new Event('beforeprint'))")
        closed = "document.querySelectorAll('details.plan:not([open])').length"
        self.assertEqual(self.run_js(closed), 0)


if __name__ == "__main__":
    HEADWAY = sys.argv.pop(1)
    if found() is None:
        print("no Chromium here: chromium, google-chrome or one of Playwright's")
        sys.exit(77)
    unittest.main()
