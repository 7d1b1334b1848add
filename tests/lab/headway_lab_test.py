#!/usr/bin/env python3
"""headway-lab as a user meets it: a small cluster that carries what it should, and leaves nothing, however it ends.

usage: headway_lab_test.py HEADWAY_LAB [HEADWAY_EXCHANGE]; skipped (77) where namespaces are not allowed
"""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from lab_rights import run_or_skip

LAB = sys.argv[1]
EXCHANGE = sys.argv[2] if len(sys.argv) > 2 else None
CLUSTER = """
name: two_leaves
device: {name: CPU, peak_matmul: 1 TFLOP/s, memory_bandwidth: 1 TB/s, memory: 1 GiB}
nodes: 4
gpus_per_node: 1
fabric: {nics_per_node: 1, nic: 40 Gbps, nodes_per_leaf: 2, oversubscription: 2, nic_latency: 1 us, spine_latency: 1 us}
"""


def lab(*words, **options):
    return subprocess.run(
        [LAB, *map(str, words)], text=True, capture_output=True, timeout=120, **options
    )


def network_namespaces():
    """Namespaces of all processes that can be seen: an interface lives as long as its namespace."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.add(os.readlink(process / "ns/net"))
        except OSError:
            continue
    return found


def interfaces():
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


class Lab(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.cluster = self.dir / "cluster.yaml"
        self.cluster.write_text(CLUSTER)

    def changed(self, old, new):
        file = self.dir / "changed.yaml"
        file.write_text(CLUSTER.replace(old, new))
        return file

    def test_map_needs_no_rights(self):
        done = lab(self.cluster, "--scale", "1/40")
        self.assertEqual(done.returncode, 0, done.stderr)
        # 2 NICs of 40 Gbit/s over 2:1, a fortieth.
        self.assertRegex(done.stdout, r"leaf_up:1 +leaf1/leaf1up +1000 Mbit/s")
        self.assertIn("not emulated: RDMA", done.stdout)

    def test_every_rank_runs_in_its_host(self):
        script = 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $(hostname)"'
        done = lab(self.cluster, "--scale", "1/40", "--quiet", "--", "sh", "-c", script)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(
            sorted(done.stdout.split("\n"))[1:], [f"{r} 4 0 10.21.0.1 gpu{r}" for r in range(4)]
        )

    def test_ranks_of_a_node_share_a_host(self):
        nodes = self.changed(
            "gpus_per_node: 1", "gpus_per_node: 2\npcie: {bandwidth: 1 GB/s, latency: 1 us}"
        )
        script = 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $(hostname)"'
        done = lab(
            nodes, "--scale", "1/40", "--hosts", "nodes", "--quiet", "--", "sh", "-c", script
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        expected = [f"{r} 8 {r % 2} 2 node{r // 2}" for r in range(8)]
        self.assertEqual(sorted(done.stdout.split("\n"))[1:], expected)

    def test_a_preset_of_many_links_is_built(self):
        # 16 GPUs with NVLink, a NIC each, on rails.
        done = lab("dgx_h100", "--nodes", 2, "--scale", "1/1000", "--quiet", "--", "true")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_exit_code_of_the_rank_that_fails(self):
        done = lab(
            self.cluster,
            "--quiet",
            "--",
            "sh",
            "-c",
            'if [ "$RANK" = 2 ]; then exit 5; fi; sleep 20',
        )
        self.assertEqual(done.returncode, 5, done.stderr)

    def test_slow_rank_runs_part_of_the_time(self):
        slow = self.changed(
            "nodes: 4", "nodes: 2\nrank_overrides: [{rank: 1, compute_factor: 0.25}]"
        )
        # What a rank gets of the processor in two seconds by the clock; a busy machine gives less, never more.
        script = 'timeout 2 sh -c "while :; do :; done"; echo "$RANK $(times | tail -1)"'
        done = lab(slow, "--", "sh", "-c", script)
        self.assertIn("gpu1: its ranks run 25 % of the time", done.stderr)
        seconds = re.search(r"^1 0m([\d.]+)s", done.stdout, re.MULTILINE)
        self.assertLess(float(seconds[1]), 0.35 * 2, done.stdout)

    def test_broken_input(self):
        for words, message in (
            ((self.cluster, "--scale", "2"), "--scale"),
            ((self.cluster, "--hosts", "racks"), "gpus, nodes"),
            ((self.cluster, "--counters", self.dir / "c.csv"), "no command"),
            ((), "no cluster"),
            (
                (self.cluster, "--quiet", "--", "no-such-program"),
                "no program 'no-such-program' in PATH",
            ),
        ):
            done = lab(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(message, done.stderr)

    def test_without_rights_one_message(self):
        forbid = 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"'
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            forbid,
            "-",
            LAB,
            self.cluster,
            "--quiet",
        ]
        done = subprocess.run(
            [*map(str, command), "--", "true"], text=True, capture_output=True, timeout=60
        )
        if "unshare" in done.stderr or "max_net_namespaces" in done.stderr:
            self.skipTest("no user namespaces: " + done.stderr.strip())
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn("accepted: root, or a user who may make", done.stderr)

    def exchange(self, cluster, matrix, repeats=2):
        rows = self.dir / "matrix.csv"
        rows.write_text("\n".join(",".join(map(str, row)) for row in matrix) + "\n")
        counters = self.dir / "counters.csv"
        words = (
            "--matrix",
            rows,
            "--repeats",
            repeats,
            "--warmup",
            0,
            "-o",
            self.dir / "times.csv",
        )
        done = lab(
            cluster, "--scale", "1/100", "--quiet", "--counters", counters, "--", EXCHANGE, *words
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(counters, newline="", encoding="utf-8") as file:
            return {row["link"]: int(row["bytes"]) for row in csv.DictReader(file)}

    @unittest.skipUnless(EXCHANGE, "built without Gloo")
    def test_links_carry_the_bytes_of_the_matrix(self):
        kib = 1024
        matrix = [
            [0, 300 * kib, 400 * kib, 0],
            [0, 0, 0, 900 * kib],
            [700 * kib, 0, 0, 0],
            [0, 0, 200 * kib, 0],
        ]
        carried = self.exchange(self.cluster, matrix)
        expected = {f"nic_up:{r}": sum(matrix[r]) for r in range(4)}
        expected |= {f"nic_down:{r}": sum(row[r] for row in matrix) for r in range(4)}
        # Across leaves: 0 and 1 under one, 2 and 3 under the other.
        expected["leaf_up:0"] = expected["leaf_down:1"] = (400 + 900) * kib
        expected["leaf_up:1"] = expected["leaf_down:0"] = 700 * kib
        for link, expected_bytes in expected.items():
            # Frames of 9000: 1 % of headers; and acknowledgements, notices and barriers of a few kB an exchange.
            low, high = 2 * expected_bytes, 2 * expected_bytes * 1.02 + 40e3
            self.assertTrue(
                low <= carried[link] <= high, f"{link}: {carried[link]}, expected {low} to {high}"
            )

    @unittest.skipUnless(EXCHANGE, "built without Gloo")
    def test_more_neighbours_than_the_kernel_has_room_for(self):
        # 40 x 39; net.ipv4.neigh.default.gc_thresh3 is 1024, for all namespaces together.
        self.exchange(self.changed("nodes: 4", "nodes: 40"), [[1000] * 40] * 40, repeats=1)

    @unittest.skipUnless(EXCHANGE, "built without Gloo")
    def test_a_slow_link_is_slow(self):
        # 1 MB to rank 1 over a tenth of 400 Mbit/s: at least 0.2 s; a bucket cannot be beaten.
        slow = self.changed(
            "nodes: 4", "nodes: 4\nlink_overrides: [{link: nic_down:1, bandwidth_factor: 0.1}]"
        )
        self.exchange(slow, [[0, 1000000, 0, 0], [0] * 4, [0] * 4, [0] * 4], repeats=1)
        with open(self.dir / "times.csv", newline="", encoding="utf-8") as file:
            self.assertGreater(float(next(csv.DictReader(file))["seconds"]), 0.19)

    def test_a_dead_link_does_not_carry(self):
        dead = self.changed(
            "nodes: 4", "nodes: 4\nlink_overrides: [{link: nic:1, bandwidth_factor: 0}]"
        )
        reach = (
            "import os,socket,sys\nif os.environ['RANK']!='0': sys.exit()\nfor h in (2,3):\n"
            + (
                " s=socket.socket(); s.settimeout(1)\n try: s.connect(('10.20.0.%d'%h,9))\n"
                " except ConnectionRefusedError: print(h,'answers')\n except OSError: print(h,'is silent')\n"
            )
        )
        done = lab(dead, "--quiet", "--", sys.executable, "-c", reach)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, "2 is silent\n3 answers\n")

    def test_killed_at_random_moments_nothing_is_left(self):
        before, links = network_namespaces(), interfaces()
        random.seed(18)
        for i in range(10):
            command = [LAB, str(self.cluster), "--scale", "1/100", "--quiet", "--", "sleep", "30"]
            front = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            time.sleep(random.uniform(0.0, 0.6))
            victims = self.processes_of(front.pid)
            victim = front.pid if i % 2 == 0 or len(victims) == 1 else random.choice(victims)
            os.kill(victim, signal.SIGKILL)
            if victim != front.pid:
                # A rank or its host's keeper: the lab ends by itself, or is ended too.
                try:
                    front.wait(timeout=2)
                except subprocess.TimeoutExpired:
                    front.kill()
            front.wait(timeout=30)
            deadline = time.monotonic() + 10
            while network_namespaces() - before and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(network_namespaces() - before, set(), f"kill {i} of {victim}")
            self.assertEqual(interfaces(), links)
        self.test_every_rank_runs_in_its_host()

    @staticmethod
    def processes_of(pid):
        found = [pid]
        for parent in found:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                try:
                    found += map(int, children.read_text().split())
                except OSError:
                    continue
        return found


if __name__ == "__main__":
    run_or_skip(LAB, CLUSTER)
