#!/usr/bin/env python3
"""recorder/headway_recorder.py on a CPU: rows of the side table, contents of fake exchanges, what is left alone.

Skips where PyTorch is missing. Each case has a process of its own, as torch.distributed is set up once.
"""

import importlib.util
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

RECORDER = Path(__file__).resolve().parent.parent.parent / "analysis" / "recorder"
HEAD = """
import torch, torch.distributed as dist, headway_recorder as headway
from headway_recorder import _State
def recorded(world=4, rank=1, experts=0, popularity=None):
    headway.headway_fake(world, rank, experts, popularity)
    dist.init_process_group("nccl")
    _State.rows = []
    return _State.rows
"""


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": str(RECORDER), "PATH": "/usr/bin:/bin"},
    )
    return result


class Recorder(unittest.TestCase):
    def passes(self, code):
        result = run(code)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_rows_hold_kind_group_bytes_and_whole_splits(self):
        self.passes("""
            rows = recorded(world=64, rank=1)
            sub = dist.new_group([1, 3], group_desc="tp")
            x = torch.ones(64 * 2, 5, dtype=torch.bfloat16)
            sizes = [i % 4 for i in range(64)]
            out = torch.empty(sum(sizes), 5, dtype=torch.bfloat16)
            dist.all_to_all_single(out, x, sizes)
            dist.all_reduce(x, group=sub)
            work = dist.all_gather_into_tensor(torch.empty(128, 5), torch.ones(2, 5), async_op=True)
            work.wait()
            dist.reduce_scatter_tensor(torch.empty(2), torch.arange(4.0), group=sub)
            a, b, c, d = rows
            assert a["send"] == [20] * 64 and a["receive"] == [10 * s for s in sizes], a
            assert (a["kind"], a["in_bytes"], a["out_bytes"]) == ("all_to_all", 1280, 960), a
            assert (b["kind"], b["ranks"], b["in_bytes"]) == ("all_reduce", [1, 3], 1280), b
            assert c["async"] and c["out_bytes"] == 128 * 5 * 4 and not a["async"], c
            assert (d["in_bytes"], d["out_bytes"], d["elements"]) == (16, 8, 4), d
            assert isinstance(work, dist.Work)
        """)

    def test_exchanges_bring_sound_contents(self):
        self.passes("""
            recorded(world=4, rank=1)
            out = torch.full((8, 3), float("nan"))
            dist.all_to_all_single(out, torch.ones(8, 3))
            assert out.isfinite().all() and out.std() > 0.5, out
            gathered = torch.empty(4, 2)
            dist.all_gather_into_tensor(gathered, torch.tensor([[1.0, 2.0]]))
            assert (gathered == torch.tensor([1.0, 2.0])).all()
            own = torch.empty(1)
            dist.reduce_scatter_tensor(own, torch.arange(4.0))
            assert own.item() == 1.0  # the own part
            ids = torch.full((6,), -7)
            dist.all_to_all_single(ids, torch.tensor([3, 1, 4, 1]), [2, 2, 1, 1], [1, 1, 1, 1])
            assert ids.tolist() == [3, 1, 4, 1, 3, 1]
            torch.manual_seed(5); before = torch.rand(3)
            torch.manual_seed(5); dist.all_to_all_single(out, torch.ones(8, 3))
            assert (torch.rand(3) == before).all()  # the script's own random numbers stay
        """)

    # W = 4 ranks with n = 4000 choices each, popularity p: rank r sends n p_e rows to expert e, give or take sqrt(n p_e).
    def test_counts_come_from_the_drawn_routing(self):
        self.passes("""
            p = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
            recorded(world=4, rank=1, experts=8, popularity=[2 * x for x in p])
            own = torch.tensor([500] * 8)
            mine = torch.empty(8, dtype=torch.long)
            dist.all_to_all_single(mine, own)
            assert (mine.view(4, 2)[1] == 500).all()  # from itself: what it has sent
            for source in (0, 2, 3):
                assert ((mine.view(4, 2)[source] - 400).abs() < 6 * 20).all(), mine
            everyone = torch.empty(32, dtype=torch.long)
            dist.all_gather_into_tensor(everyone, own)
            drawn = everyone.view(4, 8)
            assert (drawn[1] == 500).all()
            mean = 4000 * torch.tensor(p)
            assert ((drawn[[0, 2, 3]] - mean).abs() < 6 * mean.sqrt()).all(), drawn
        """)

    def test_object_collectives_and_functional_ones_are_not_rows_of_their_own(self):
        self.passes("""
            rows = recorded(world=2, rank=0)
            objects = [None, None]
            dist.all_gather_object(objects, {"a": 1})
            assert objects == [{"a": 1}, {"a": 1}], objects
            assert all(r["kind"] == "all_gather" for r in rows), rows
        """)

    def test_what_cannot_be_is_refused(self):
        for code, words in (
            ("headway.headway_fake(2, 2)", "rank 2 of 2"),
            ("headway.headway_fake(2, experts=4, popularity=[1, 2])", "4 shares"),
            ("recorded(); headway.headway_fake(2)", "set up already"),
            ("headway.Recorder('x', profiled=0)", "profiled is 0"),
        ):
            result = run(code)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(words, result.stderr)

    def test_nothing_is_wrapped_by_the_import_alone(self):
        self.passes("assert not hasattr(dist.all_reduce, '__wrapped__') or not _State.wrapped")


if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed")
        sys.exit(77)
    sys.exit(unittest.main())
