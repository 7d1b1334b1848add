"""headway verify: measured timelines that are none, or of something else."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HEADWAY = sys.argv.pop(1)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCENARIO = os.path.join(ROOT, "scenarios", "cpu_small.yaml")


class Verify(unittest.TestCase):
    """Measured timelines that are none, or of something else."""

    HEAD = "# headway timeline 1\n# scenario: {}\n# profile: CPU\n# version: 0\n# seed: 0\n"
    COLUMNS = (
        "source,plan,rank,layer,micro_batch,pass,phase,count,begin_s,duration_s,low_s,high_s,bytes,"
        "flops,samples,bottleneck\n"
    )

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.folder.cleanup()

    def verify(self, text, *words):
        file = os.path.join(self.folder.name, "m.csv")
        with open(file, "w") as out:
            out.write(text)
        command = [HEADWAY, "verify", SCENARIO, "--profile", "h100_public", "--measured", file]
        return subprocess.run([*command, *words], capture_output=True, text=True)

    def rows(self, source, plan="ep_naive", ranks=2):
        return "".join(
            f"{source},{plan},{r},0,0,forward,route,1,0,0.001,0,0,0,0,1,\n" for r in range(ranks)
        )

    def test_what_is_no_measurement_of_this_scenario_is_refused(self):
        head = self.HEAD.format("cpu_small") + self.COLUMNS
        sized = self.HEAD.format("cpu_small") + "# size: ep_naive,2,77\n" + self.COLUMNS
        for text, found in (
            (head + "# end: 0 rows\n", "no measured rows"),
            (head + self.rows("predicted") + "# end: 2 rows\n", "no measured rows"),
            (head + self.rows("measured", ranks=3) + "# end: 3 rows\n", "on 3 ranks"),
            (head + self.rows("measured", plan="other") + "# end: 2 rows\n", "plan 'other'"),
            (sized + self.rows("measured") + "# end: 2 rows\n", "of 77 tokens a rank"),
            (
                self.HEAD.format("another")
                + self.COLUMNS
                + self.rows("measured")
                + "# end: 2 rows\n",
                "scenario 'another'",
            ),
        ):
            done = self.verify(text)
            self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
            self.assertIn(found, done.stderr)

    def test_a_run_of_whole_steps_is_judged_by_the_step(self):
        scenario = os.path.join(os.path.dirname(SCENARIO), "step_text.yaml")
        of = [scenario, "--profile", "h200_layers"]
        asked = [HEADWAY, "predict", *of, "--plan", "hp", "--format", "json"]
        done = subprocess.run(asked, capture_output=True, text=True)
        predicted = json.loads(done.stdout)["plans"][0]
        head = self.HEAD.format("step_text") + "# size: hp,2,1024\n"
        step = "# run: hp,1980,,1e9,0,1\n# step: hp,{},0.001,1,15\n"
        rows = self.COLUMNS + self.rows("measured", plan="hp") + "# end: 2 rows\n"
        files = {}
        for name, factor in (("twice", 2), ("same", 1)):
            files[name] = os.path.join(self.folder.name, name + ".csv")
            with open(files[name], "w") as out:
                out.write(head + step.format(factor * predicted["step_time_s"]) + rows)
        files["layers"] = os.path.join(self.folder.name, "layers.csv")
        with open(files["layers"], "w") as out:
            out.write(head + rows)

        def verify(*names, tolerance="25"):
            measured = [word for name in names for word in ("--measured", files[name])]
            return subprocess.run(
                [HEADWAY, "verify", *of, *measured, "--tolerance", tolerance, "--min-time", "1e9"],
                capture_output=True,
                text=True,
            )

        # Twice as long as predicted: 50 % too little was said. The pass of the one phase is off too.
        done = verify("twice", tolerance="49")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"step: predicted .*, -50\.0 %, outside its interval")
        memory = 100 * (predicted["memory"]["allocated_bytes"] / 1e9 - 1)
        self.assertIn(f"{memory:+.1f} %", done.stdout)
        self.assertRegex(
            verify("same").stdout, r"step: predicted .*, [+-]0\.0 %, inside its interval"
        )
        # The median of both: 1.5 times as long.
        self.assertIn("-33.3 %", verify("twice", "same").stdout)
        mixed = verify("same", "layers")
        self.assertEqual(mixed.returncode, 2, mixed.stdout)
        self.assertIn("whole steps and layers alone", mixed.stderr)
        # A run of one micro-batch says nothing of steps of two.
        with open(scenario) as text:
            of[0] = os.path.join(self.folder.name, "step_text.yaml")
            with open(of[0], "w") as out:
                out.write(text.read().replace("batch: {", "batch: {num_micro_batches: 2, "))
        two = verify("same")
        self.assertEqual(two.returncode, 2, two.stdout)
        self.assertIn("steps of 1 micro-batches; accepted: steps of 2", two.stderr)


if __name__ == "__main__":
    unittest.main()
